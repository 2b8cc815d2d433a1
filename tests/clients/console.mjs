// A person at the console, in real Chromium. Usage: node console.mjs TASK JSON. Prints one JSON line.
import { readFileSync } from "node:fs";
import { createServer, request } from "node:http";
import { chromium } from "playwright-core";

const [task, given] = process.argv.slice(2);
const input = JSON.parse(given);
const LAUNCH = {
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync"],
};

async function logIn(page, email = input.email) {
  await page.fill("[name=email]", email);
  await page.fill("#login [name=password]", input.password);
  await page.click("#login button");
  await page.waitForSelector("#ask", { state: "visible" });
  await page.waitForSelector("#query select option", { state: "attached" });
}

async function run(page, count = input.hosts) {
  await page.fill("#sql", input.sql);
  await page.click("#run");
  if (count !== null) await page.waitForFunction((count) => document.querySelector("#counts").textContent.startsWith(`${count} of`), count);
}

// Everything that a reader of the page could find, seen or not.
const remains = (page) => page.evaluate(() => {
  const fields = [...document.querySelectorAll("input, textarea, select")].map((field) => field.value);
  const kept = [JSON.stringify(sessionStorage), JSON.stringify(localStorage), JSON.stringify(history.state), document.cookie];
  return [document.body.textContent, ...fields, ...kept].join("\n");
});

async function columns(page) {
  await run(page);
  const texts = (selector) => page.$$eval(selector, (cells) => cells.map((cell) => cell.textContent));
  const head = await texts("#table th");
  const rows = await page.$$eval("#table tbody tr:not(.space)", (rows) => rows.map((row) => [...row.children].map((cell) => cell.textContent)));
  await page.fill("#filter", input.filter);
  await page.waitForFunction(() => document.querySelector("#shown").textContent === "1 rows");
  const [download] = await Promise.all([page.waitForEvent("download"), page.click("#export")]);
  const csv = readFileSync(await download.path(), "utf8");
  if (input.screenshot) await page.screenshot({ path: input.screenshot });
  await page.click("#logout");
  await page.waitForSelector("#login", { state: "visible" });
  const left = await remains(page);
  await logIn(page, input.other);
  return { head, rows, csv, left, next: await remains(page) };
}

async function failures(page) {
  await run(page);
  const shares = () => page.$$eval("#bar span", (parts) => parts.map((part) => part.style.width));
  const counts = () => page.textContent("#counts");
  const failed = { shares: await shares(), counts: await counts() };
  if (input.screenshot) await page.screenshot({ path: input.screenshot });
  await page.fill("[name=hosts]", "nosuch");
  await page.click("#run");
  await page.waitForFunction(() => document.querySelector("#query .error").textContent !== "");
  await page.waitForFunction(() => !document.querySelector("#counts").textContent.includes("failed"));
  const unknown = { shares: await shares(), counts: await counts(), error: await page.textContent("#query .error") };
  return { failed, unknown };
}

// The session ends elsewhere: in front of a request, and under a running stream. A reload keeps it.
async function expiry(page) {
  const end = async () => {
    const token = await page.evaluate(() => history.state.token);
    await fetch(`${input.base}/api/latest/fleet/logout`, { method: "POST", headers: { Authorization: `Bearer ${token}` } });
  };
  await page.reload();
  await page.waitForSelector("#ask", { state: "visible" });
  await end();
  await page.click("#run");
  await page.waitForSelector("#login", { state: "visible" });
  const idle = await page.textContent("#login .error");
  await logIn(page);
  await run(page, null);
  await page.waitForFunction(() => document.querySelector("#connection").textContent === "live");
  await end();
  await page.waitForSelector("#login", { state: "visible", timeout: 20_000 });
  return { idle, streaming: await page.textContent("#login .error") };
}

async function stop(page) {
  await run(page, 1);
  await page.click("#stop");
  await page.waitForFunction(() => document.querySelector("#ending").textContent !== "");
  return { ending: await page.textContent("#ending"), disabled: await page.isDisabled("#stop") };
}

// Answers that come late: the page must not give up before.
async function patience(page) {
  await run(page, null);
  await page.waitForFunction(() => document.querySelector("#query .error").textContent.includes("result store"));
  console.error("warned");
  await page.waitForFunction(() => document.querySelector("#counts").textContent.startsWith("1 of"));
  return { counts: await page.textContent("#counts") };
}

// The first connection breaks after a result; what the second one asks for.
async function resume(page) {
  const selects = [];
  await page.routeWebSocket("**/results/websocket", (socket) => {
    const server = socket.connectToServer();
    socket.onMessage((text) => {
      const { type, data } = JSON.parse(text);
      if (type === "select_campaign") selects.push(data);
      server.send(text);
    });
    server.onMessage((text) => {
      socket.send(text);
      if (selects.length === 1 && JSON.parse(text).type === "result") {
        socket.close({ code: 4000 });
        server.close();
      }
    });
  });
  // Sockets of a document that was there before are not led this way by every release of the driver.
  await page.reload();
  await run(page);
  return { selects, shown: await page.textContent("#shown") };
}

// A JSONP answer of this origin is no script here, however it gets into the page.
async function scripts(page) {
  return page.evaluate(() => new Promise((done) => {
    window.called = [];
    window.hear = (frame) => window.called.push(frame);
    const script = document.createElement("script");
    const end = (outcome) => () => done({ outcome, called: window.called });
    script.onload = end("loaded");
    script.onerror = end("refused");
    script.src = "/api/latest/fleet/results/000/jsonpsession/jsonp?c=hear";
    document.head.append(script);
  }));
}

// A proxy that lets no WebSocket through: it refuses them, never answers them, or cuts them; or holds back all streams too.
function proxy() {
  const { hostname, port } = new URL(input.base);
  const server = createServer((incoming, outgoing) => {
    const { method, url, headers } = incoming;
    const onward = request({ hostname, port, method, path: url, headers }, (reply) => {
      if (input.blocked !== "buffered") {
        outgoing.writeHead(reply.statusCode, reply.headers);
        reply.pipe(outgoing);
        return;
      }
      const parts = [];
      reply.on("data", (part) => parts.push(part));
      reply.on("end", () => outgoing.writeHead(reply.statusCode, reply.headers).end(Buffer.concat(parts)));
    });
    outgoing.on("close", () => onward.destroy());
    onward.on("error", () => outgoing.destroy());
    incoming.pipe(onward);
  });
  server.on("upgrade", (_, socket) => {
    socket.on("error", () => {});
    if (input.blocked === "silent") return;
    if (input.blocked === "cut") socket.destroy();
    else socket.end("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
  });
  return new Promise((done) => server.listen(0, "127.0.0.1", () => done(server)));
}

async function blocked(page) {
  await run(page, null);
  await page.waitForFunction(() => document.querySelector("#connection").textContent.startsWith("live"));
  const connection = await page.textContent("#connection");
  console.error("connected");
  await page.waitForFunction((count) => document.querySelector("#counts").textContent.startsWith(`${count} of`), input.hosts);
  return { connection, shown: await page.textContent("#shown") };
}

const browser = await chromium.launch(LAUNCH);
const between = input.blocked ? await proxy() : null;
try {
  const page = await (await browser.newContext({ acceptDownloads: true })).newPage();
  page.setDefaultTimeout(60_000);
  const faults = [];
  page.on("pageerror", (error) => faults.push(String(error)));
  await page.goto(between ? `http://127.0.0.1:${between.address().port}` : input.base);
  const alone = task === "scripts";
  if (!alone) await logIn(page);
  const said = await { columns, failures, expiry, stop, patience, scripts, blocked, resume }[task](page);
  console.log(JSON.stringify({ ...said, faults }));
} finally {
  await browser.close();
  between?.closeAllConnections();
  between?.close();
}
