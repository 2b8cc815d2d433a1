// The result stream: one raw WebSocket that resumes where it broke.

const RETRY_MS = 1000;

export class Stream {
  // `on` has totals(data), status(data), result(data), error(text) and connection(text).
  constructor(base, token, campaign, on) {
    Object.assign(this, { base, token, campaign, on, seen: 0, ended: false });
    this.open();
  }

  open() {
    const url = new URL(`${this.base}/results/websocket`, location.href);
    url.protocol = url.protocol.replace("http", "ws");
    const socket = (this.socket = new WebSocket(url));
    socket.onopen = () => {
      const select = { campaign_id: this.campaign, after: this.seen };
      socket.send(JSON.stringify({ type: "auth", data: { token: this.token } }));
      socket.send(JSON.stringify({ type: "select_campaign", data: select }));
      this.on.connection("live");
    };
    socket.onmessage = ({ data }) => this.take(JSON.parse(data));
    socket.onclose = () => {
      if (this.ended) return;
      this.on.connection("connection lost, trying again…");
      setTimeout(() => this.ended || this.open(), RETRY_MS);
    };
  }

  take({ type, data }) {
    if (type === "result") this.seen = data.seq ?? this.seen + 1;
    // An error is the broker's last word unless it only says that the store is slow.
    if (type === "error" && !data.startsWith("the result store")) this.close();
    this.on[type]?.(data);
  }

  close() {
    this.ended = true;
    this.socket.close();
    this.on.connection("");
  }
}
