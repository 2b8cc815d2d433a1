// The console: log in, ask, and watch answers arrive. It speaks the public API only.

import { Answers } from "./answers.js";
import { Stream } from "./stream.js";

const BASE = "/api/latest/fleet";
const TOKEN_KEY = "answerback-token";
const by = (id) => document.getElementById(id);
const login = by("login");
const renew = by("renew");
const query = by("query");
const answers = new Answers(by("table"));

let token = sessionStorage.getItem(TOKEN_KEY);
// Logged in with a password that was for once: nothing else works before it is changed.
let mustRenew = false;
let stream = null;
let failed = 0;
let answered = 0;
let totals = { count: 0, online: 0 };

async function call(method, path, body) {
  const headers = { "Content-Type": "application/json" };
  if (token) headers.Authorization = `Bearer ${token}`;
  const reply = await fetch(BASE + path, { method, headers, body: body && JSON.stringify(body) });
  const said = await reply.json().catch(() => ({}));
  if (reply.ok) return said;
  if (reply.status === 401 && path !== "/login") leave();
  throw new Error(said.errors?.[0]?.reason ?? said.message ?? `status ${reply.status}`);
}

function complain(form, text) {
  form.querySelector(".error").textContent = text;
}

function submit(form, action) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    complain(form, "");
    try {
      await action(new FormData(form));
    } catch (error) {
      complain(form, error.message);
    }
  });
}

function leave() {
  stream?.close();
  token = null;
  sessionStorage.removeItem(TOKEN_KEY);
  show();
}

async function show() {
  login.hidden = Boolean(token);
  renew.hidden = !token || !mustRenew;
  by("ask").hidden = by("who").hidden = !token || mustRenew;
  if (!token || mustRenew) return;
  try {
    const [{ user }, { labels }] = await Promise.all([call("GET", "/me"), call("GET", "/labels")]);
    by("email").textContent = user.email;
    const options = labels.map((label) => new Option(`${label.name} (${label.count ?? label.host_count ?? 0})`, label.id));
    query.elements.label.replaceChildren(...options);
  } catch (error) {
    complain(query, error.message);
  }
}

submit(login, async (form) => {
  const said = await call("POST", "/login", { email: form.get("email"), password: form.get("password") });
  token = said.token;
  mustRenew = said.user.force_password_reset;
  if (!mustRenew) sessionStorage.setItem(TOKEN_KEY, token);
  login.reset();
  await show();
});

submit(renew, async (form) => {
  await call("POST", "/perform_required_password_reset", { new_password: form.get("password") });
  mustRenew = false;
  sessionStorage.setItem(TOKEN_KEY, token);
  renew.reset();
  await show();
});

by("logout").addEventListener("click", async () => {
  await call("POST", "/logout").catch(() => {});
  leave();
});

submit(query, async (form) => {
  stream?.close();
  answers.clear();
  answers.filter(by("filter").value);
  [failed, answered, totals] = [0, 0, { count: 0, online: 0 }];
  by("failures").querySelector("ul").replaceChildren();
  const hosts = form.get("hosts").split(",").map((name) => name.trim()).filter(Boolean);
  const campaign = hosts.length
    ? await call("POST", "/queries/run_by_identifiers", { query: form.get("sql"), selected: { hosts, labels: [] } })
    : await call("POST", "/queries/run", {
        query: form.get("sql"),
        selected: { hosts: [], labels: [Number(form.get("label"))], teams: [] },
      });
  stream = new Stream(BASE, token, campaign.campaign.id, {
    totals: (data) => { totals = data; progress(); },
    status: () => progress(),
    result,
    error: (text) => complain(query, text),
    connection: (text) => { by("connection").textContent = text; },
  });
  running(true);
});

function result({ host, rows, error }) {
  answered += 1;
  if (error != null) {
    failed += 1;
    const item = document.createElement("li");
    item.textContent = `${host.display_name || host.hostname}: ${error || "the query failed"}`;
    by("failures").querySelector("ul").append(item);
  }
  answers.add(host.display_name || host.hostname, rows);
  progress();
}

let drawing = false;
function progress() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    const bar = document.querySelector("progress");
    bar.max = Math.max(totals.count, 1);
    bar.value = answered;
    by("counts").textContent = `${answered} of ${totals.count} hosts answered, ${totals.online} online`;
    by("failures").querySelector("summary").textContent = `${failed} hosts failed`;
    by("shown").textContent = `${answers.visible.length} rows`;
    by("export").disabled = answers.visible.length === 0;
    if (totals.count > 0 && answered >= totals.count) finish();
  });
}

function running(on) {
  by("stop").disabled = !on;
}

function finish() {
  stream?.close();
  stream = null;
  running(false);
}

by("stop").addEventListener("click", finish);
by("filter").addEventListener("input", (event) => {
  answers.filter(event.target.value);
  progress();
});
by("export").addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([answers.csv()], { type: "text/csv" }));
  link.download = "answers.csv";
  link.click();
  URL.revokeObjectURL(link.href);
});

show();
