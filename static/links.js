// Ways to the broker's result stream. Each opens at once, calls on.open(), on.message(text) and, last and once, on.close(),
// and has send(texts) and close().
"use strict";

// A raw WebSocket.
class SocketLink {
  constructor(base, on) {
    const url = new URL(`${base}/results/websocket`, location.href);
    url.protocol = url.protocol.replace("http", "ws");
    this.on = on;
    this.socket = new WebSocket(url);
    this.socket.onopen = () => on.open();
    this.socket.onmessage = ({ data }) => this.on?.message(data);
    this.socket.onclose = () => this.end();
  }

  send(texts) {
    for (const text of texts) this.socket.send(text);
  }

  // Does not wait for the closing handshake: where WebSockets are blocked it may never come.
  close() {
    this.socket.close();
    this.end();
  }

  end() {
    const on = this.on;
    this.on = null;
    on?.close();
  }
}

// A SockJS session over plain requests, for networks that let no WebSocket through: one long response, or a response a poll.
class SockJsLink {
  constructor(base, on, transport) {
    const digits = crypto.getRandomValues(new Uint32Array(4));
    const session = Array.from(digits, (digit) => digit.toString(36)).join("");
    const server = String(digits[0] % 1000).padStart(3, "0");
    Object.assign(this, { on, transport, url: `${base}/results/${server}/${session}`, over: false });
    this.requests = new AbortController();
    this.receive().catch(() => {}).finally(() => this.end());
  }

  async receive() {
    while (!this.over) {
      const reply = await this.post(this.transport);
      const reader = reply.body.getReader();
      const decoder = new TextDecoder();
      let line = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        const lines = decoder.decode(value, { stream: true }).split("\n");
        for (const more of lines.slice(0, -1)) {
          this.take(line + more);
          line = "";
        }
        line += lines.at(-1);
      }
    }
  }

  take(frame) {
    if (frame[0] === "o") this.on?.open();
    if (frame[0] === "a") JSON.parse(frame.slice(1)).forEach((text) => this.on?.message(text));
    if (frame[0] === "c") this.over = true;
  }

  send(texts) {
    this.post("xhr_send", JSON.stringify(texts)).catch(() => this.close());
  }

  async post(path, body) {
    const options = { method: "POST", body, signal: this.requests.signal, cache: "no-store", credentials: "omit" };
    const reply = await fetch(`${this.url}/${path}`, options);
    if (!reply.ok) throw new Error(`status ${reply.status}`);
    return reply;
  }

  close() {
    this.requests.abort();
    this.end();
  }

  end() {
    const on = this.on;
    this.over = true;
    this.on = null;
    on?.close();
  }
}
