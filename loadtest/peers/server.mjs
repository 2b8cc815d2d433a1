// A peer for `loadtest compare`: every byte that a connection to /publish sends is one message to all viewers.
//
//   node server.mjs sockjs|ws PORT BYTES
import { createServer } from "node:http";
import sockjs from "sockjs";
import { WebSocketServer } from "ws";

const [kind, port, bytes] = process.argv.slice(2);
const PREFIX = "/api/v1/fleet/results";

// As long as asked for, and of the shape that the load tester's viewers count.
const empty = JSON.stringify({ type: "result", data: "" }).length;
const message = JSON.stringify({ type: "result", data: "x".repeat(Math.max(0, Number(bytes) - empty)) });

const viewers = new Set();
const server = createServer();

server.on("upgrade", (request, socket) => {
  if (request.url !== "/publish") return;
  socket.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: publish\r\n\r\n");
  socket.on("error", () => {});
  socket.on("data", (due) => {
    for (let count = due.length; count > 0; count -= 1) for (const send of viewers) send(message);
  });
});

if (kind === "sockjs") {
  const service = sockjs.createServer({ log: () => {} });
  service.on("connection", (viewer) => {
    const send = (text) => viewer.write(text);
    viewers.add(send);
    viewer.on("close", () => viewers.delete(send));
  });
  service.installHandlers(server, { prefix: PREFIX });
} else {
  const service = new WebSocketServer({ noServer: true, perMessageDeflate: false });
  server.on("upgrade", (request, socket, head) => {
    if (request.url === "/publish") return;
    service.handleUpgrade(request, socket, head, (viewer) => {
      const send = (text) => viewer.send(text);
      viewers.add(send);
      viewer.on("close", () => viewers.delete(send));
      viewer.on("error", () => {});
    });
  });
}

server.listen(Number(port), "127.0.0.1");
