// The real sockjs-client in Node, forced to one transport.
// Usage: node sockjs.mjs BASE-URL TOKEN CAMPAIGN TRANSPORT [PORT]. Prints {transport, seqs} when finished; connects to
// the port when it has heard three heartbeats.
import { connect } from "node:net";
import SockJS from "sockjs-client";

const [base, token, campaign, transport, port] = process.argv.slice(2);
const socket = new SockJS(`${base}/api/latest/fleet/results`, undefined, { transports: [transport] });
const seqs = [];
let heartbeats = 0;
socket.addEventListener("heartbeat", () => {
  heartbeats += 1;
  if (heartbeats === 3 && port) connect(Number(port), "127.0.0.1").end();
});
socket.onopen = () => {
  socket.send(JSON.stringify({ type: "auth", data: { token } }));
  socket.send(JSON.stringify({ type: "select_campaign", data: { campaign_id: Number(campaign) } }));
};
socket.onmessage = ({ data }) => {
  const message = JSON.parse(data);
  if (message.type === "result") seqs.push(message.data.seq);
  if (message.type === "status" && message.data.status === "finished") {
    console.log(JSON.stringify({ transport: socket.transport, seqs }));
    socket.close();
  }
};
socket.onclose = ({ code, reason, wasClean }) => {
  if (code !== 1000) {
    console.error(JSON.stringify({ code, reason, wasClean, seen: seqs.length }));
    process.exitCode = 1;
  }
};
