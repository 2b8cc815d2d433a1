// What a person and a page do, in real Chromium.
// Usage: node browser.mjs TASK JSON. Tasks: example, sockjs, blocked, console. Prints one JSON line.
import { readFileSync } from "node:fs";
import { createServer, request } from "node:http";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";
import { example } from "./example.mjs";

const [task, given] = process.argv.slice(2);
const input = JSON.parse(given);
const LAUNCH = {
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync"],
};
const library = readFileSync(createRequire(import.meta.url).resolve("sockjs-client/dist/sockjs.min.js"), "utf8");

// A page of another origin than the broker's, with the SockJS library at hand.
function foreignPage() {
  const server = createServer((request, response) => {
    const script = request.url.endsWith(".js");
    response.setHeader("Content-Type", script ? "text/javascript" : "text/html; charset=utf-8");
    response.end(script ? library : "<!doctype html><title>page</title><script src=/sockjs.js></script>");
  });
  return new Promise((done) => server.listen(input.port ?? 0, "127.0.0.1", () => done(server)));
}

// The document's script, in a page of the broker itself.
async function runExample(page) {
  await page.goto(`${input.base}/healthz`);
  const script = example(readFileSync(input.document, "utf8"), input.base, input.token, input.campaign);
  return page.evaluate((text) => new Promise((done, fail) => {
    const heard = [];
    const log = { log: (data) => heard.push(data) };
    const socket = new Function("console", `${text}\nreturn socket;`)(log);
    socket.addEventListener("close", () => done({ heard }));
    socket.addEventListener("error", () => fail(new Error("socket error")));
  }), script);
}

// The real client on one transport (or its own choice), from this origin or a foreign one.
async function runSockjs(page) {
  const foreign = await foreignPage();
  try {
    const origin = `http://127.0.0.1:${foreign.address().port}`;
    if (input.cross) {
      await page.goto(`${origin}/page`);
    } else {
      await page.goto(`${input.base}/healthz`);
      await page.addScriptTag({ content: library });
    }
    return await page.evaluate(({ base, token, campaign, transports }) => new Promise((done) => {
      const seqs = [];
      const socket = new SockJS(`${base}/api/v1/fleet/results`, undefined, transports ? { transports } : {});
      socket.onopen = () => {
        socket.send(JSON.stringify({ type: "auth", data: { token } }));
        socket.send(JSON.stringify({ type: "select_campaign", data: { campaign_id: campaign } }));
      };
      socket.onmessage = ({ data }) => {
        const message = JSON.parse(data);
        if (message.type === "result") seqs.push(message.data.seq);
        if (message.type === "status" && message.data.status === "finished") {
          done({ transport: socket.transport, seqs });
          socket.close();
        }
      };
      socket.onclose = ({ code, reason }) => done({ transport: socket.transport, seqs, code, reason });
    }), input);
  } finally {
    foreign.closeAllConnections();
    foreign.close();
  }
}

// The real client behind a proxy that lets no WebSocket through.
async function runBlocked(page) {
  let refused = 0;
  const { hostname, port } = new URL(input.base);
  const proxy = createServer((incoming, outgoing) => {
    const { method, url, headers } = incoming;
    const onward = request({ hostname, port, method, path: url, headers }, (reply) => {
      outgoing.writeHead(reply.statusCode, reply.headers);
      reply.pipe(outgoing);
    });
    outgoing.on("close", () => onward.destroy());
    onward.on("error", () => outgoing.destroy());
    incoming.pipe(onward);
  });
  proxy.on("upgrade", (_, socket) => {
    refused += 1;
    socket.end("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
  });
  await new Promise((done) => proxy.listen(0, "127.0.0.1", done));
  input.base = `http://127.0.0.1:${proxy.address().port}`;
  try {
    return { ...(await runSockjs(page)), refused };
  } finally {
    proxy.closeAllConnections();
    proxy.close();
  }
}

// A person at the console: logs in, asks, reads the table, filters.
async function runConsole(page) {
  const faults = [];
  page.on("pageerror", (error) => faults.push(String(error)));
  page.on("console", (message) => message.type() === "error" && faults.push(message.text()));
  await page.goto(input.base);
  await page.fill("[name=email]", input.email);
  await page.fill("[name=password]", input.password);
  await page.click("#login button");
  if (input.renewed) {
    await page.waitForSelector("#renew", { state: "visible" });
    await page.fill("#renew [name=password]", input.renewed);
    await page.click("#renew button");
  }
  await page.waitForSelector("#ask", { state: "visible" });
  const leftover = await page.isVisible("#login") || await page.isVisible("#renew");
  await page.fill("#sql", input.sql);
  await page.click("#run");
  await page.waitForFunction((count) => document.querySelector("#counts").textContent.startsWith(`${count} of`), input.hosts);
  const shown = await page.textContent("#shown");
  const first = await page.textContent("#table tbody tr:nth-child(2)");
  await page.fill("#filter", input.filter);
  await page.waitForFunction((text) => document.querySelector("#shown").textContent !== text, shown);
  const filtered = await page.textContent("#shown");
  if (input.screenshot) await page.screenshot({ path: input.screenshot });
  return { shown, first, filtered, faults, leftover };
}

const browser = await chromium.launch(LAUNCH);
try {
  const context = await browser.newContext({ ignoreHTTPSErrors: true });
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  const run = { example: runExample, sockjs: runSockjs, blocked: runBlocked, console: runConsole }[task];
  console.log(JSON.stringify(await run(page)));
} finally {
  await browser.close();
}
