// The result stream: over whatever gets through, resumed where it broke.
"use strict";

const RETRY_MS = 1000;
// A way over which nothing has come for so long is blocked, or held back by something on it.
const FIRST_MESSAGE_MS = 8000;

const WAYS = [
  { name: "", open: (base, on) => new SocketLink(base, on) },
  { name: " over HTTP streaming", open: (base, on) => new SockJsLink(base, on, "xhr_streaming") },
  { name: " over HTTP polling", open: (base, on) => new SockJsLink(base, on, "xhr") },
];

class Stream {
  // `on` has totals(data), status(data), result(data), error({data, code, final}) and connection(text).
  constructor(base, token, campaign, on) {
    Object.assign(this, { base, token, campaign, on, after: 0, epoch: undefined, way: 0, ended: false });
    this.open();
  }

  open() {
    const way = WAYS[this.way];
    let heard = false;
    let timer = null;
    const on = {
      open: () => {
        const select = { campaign_id: this.campaign, after: this.after, epoch: this.epoch };
        const messages = [{ type: "auth", data: { token: this.token } }, { type: "select_campaign", data: select }];
        this.link.send(messages.map((message) => JSON.stringify(message)));
      },
      message: (text) => {
        if (!heard) this.on.connection(`live${way.name}`);
        heard = true;
        clearTimeout(timer);
        this.take(JSON.parse(text));
      },
      close: () => {
        clearTimeout(timer);
        if (this.ended) return;
        // What has worked is tried again first, and what has not is tried after everything else.
        if (!heard) this.way = (this.way + 1) % WAYS.length;
        this.on.connection("connection lost, trying again…");
        setTimeout(() => this.ended || this.open(), heard || this.way === 0 ? RETRY_MS : 0);
      },
    };
    try {
      this.link = way.open(this.base, on);
      timer = setTimeout(() => this.link.close(), FIRST_MESSAGE_MS);
    } catch {
      on.close();
    }
  }

  take(message) {
    const { type, data } = message;
    if (type === "result") this.after = data.seq ?? this.after + 1;
    if (type === "totals") this.epoch = data.epoch;
    // An error is the broker's last word unless it says that it mends itself.
    if (type === "error" && message.final !== false) this.close();
    this.on[type]?.(type === "error" ? message : data);
  }

  close() {
    this.ended = true;
    this.link?.close();
    this.on.connection("");
  }
}
