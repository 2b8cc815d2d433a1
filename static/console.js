// The console: log in, ask, and watch answers arrive. It speaks the public API only.
"use strict";

const BASE = "/api/latest/fleet";
const by = (id) => document.getElementById(id);
const login = by("login");
const renew = by("renew");
const query = by("query");
const answers = new Answers(by("table"));

// Kept in the page's own history entry: it survives a reload, and no other page of this origin can read it there, as all
// of them could in sessionStorage.
let token = history.state?.token ?? null;
// Logged in with a password that was for once: nothing else works before it is changed.
let mustRenew = false;
let stream = null;
let campaign = null;
let failed = 0;
let answered = 0;
let totals = { count: 0, online: 0 };

async function call(method, path, body) {
  const headers = { "Content-Type": "application/json" };
  if (token) headers.Authorization = `Bearer ${token}`;
  const reply = await fetch(BASE + path, { method, headers, body: body && JSON.stringify(body) });
  const said = await reply.json().catch(() => ({}));
  if (reply.ok) return said;
  // Somebody else may have logged in meanwhile.
  if (reply.status === 401 && path !== "/login" && headers.Authorization === `Bearer ${token}`) {
    leave("Your session has ended. Log in again.");
  }
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

function keep(fresh) {
  token = fresh;
  history.replaceState(fresh && { token: fresh }, "");
}

// Leaves nothing of whoever was logged in to the next one.
function leave(why = "") {
  finish();
  keep(null);
  mustRenew = false;
  clear();
  for (const form of [login, renew, query]) {
    form.reset();
    complain(form, "");
  }
  by("filter").value = "";
  by("email").textContent = "";
  query.elements.label.replaceChildren();
  answers.filter("");
  show();
  complain(login, why);
}

// Forgets the last question's answers.
function clear() {
  answers.clear();
  answers.filter(by("filter").value);
  [failed, answered, totals] = [0, 0, { count: 0, online: 0 }];
  by("failures").querySelector("ul").replaceChildren();
  by("ending").textContent = "";
  progress();
}

async function show() {
  login.hidden = Boolean(token);
  renew.hidden = !token || !mustRenew;
  by("ask").hidden = by("who").hidden = !token || mustRenew;
  if (!token || mustRenew) return;
  const asker = token;
  try {
    const [{ user }, { labels }] = await Promise.all([call("GET", "/me"), call("GET", "/labels")]);
    if (token !== asker) return;
    by("email").textContent = user.email;
    const options = labels.map((label) => new Option(`${label.name} (${label.count ?? label.host_count ?? 0})`, label.id));
    query.elements.label.replaceChildren(...options);
  } catch (error) {
    complain(query, error.message);
  }
}

submit(login, async (form) => {
  const said = await call("POST", "/login", { email: form.get("email"), password: form.get("password") });
  mustRenew = said.user.force_password_reset;
  if (mustRenew) token = said.token;
  else keep(said.token);
  complain(query, "");
  login.reset();
  await show();
});

submit(renew, async (form) => {
  await call("POST", "/perform_required_password_reset", { new_password: form.get("password") });
  mustRenew = false;
  keep(token);
  renew.reset();
  await show();
});

by("logout").addEventListener("click", async () => {
  // At once, even if the broker does not answer; both requests have their token by then.
  const ending = [stop(), call("POST", "/logout")];
  leave();
  await Promise.allSettled(ending);
});

submit(query, async (form) => {
  // Nobody watches the last one any more.
  stop().catch(() => {});
  finish();
  clear();
  const asker = token;
  const hosts = form.get("hosts").split(",").map((name) => name.trim()).filter(Boolean);
  by("run").disabled = true;
  const made = await ask(form, hosts).finally(() => { by("run").disabled = false; });
  if (token !== asker) return;
  campaign = made.campaign.id;
  const found = made.campaign.Metrics?.TotalHosts ?? 0;
  if (found < hosts.length) complain(query, `Only ${found} of these ${hosts.length} names are hosts that you may ask.`);
  watch();
});

function ask(form, hosts) {
  return hosts.length
    ? call("POST", "/queries/run_by_identifiers", { query: form.get("sql"), selected: { hosts, labels: [] } })
    : call("POST", "/queries/run", {
        query: form.get("sql"),
        selected: { hosts: [], labels: [Number(form.get("label"))], teams: [] },
      });
}

function watch() {
  running(true);
  stream = new Stream(BASE, token, campaign, {
    totals: (data) => { totals = data; progress(); },
    status: ended,
    result,
    error: ({ data, code, final }) => {
      complain(query, data);
      if (final !== false) finish();
      if (code === "unauthorized") explain();
    },
    connection: (text) => { by("connection").textContent = text; },
  });
}

// Whether the session is gone, which `call` says, or only the right to watch this query.
async function explain() {
  const asker = token;
  const known = await call("GET", "/me").catch(() => null);
  if (known && token === asker) complain(query, "You may not watch this query any more.");
}

// Ends the question for the hosts, too.
async function stop() {
  if (stream) await call("POST", `/campaigns/${campaign}/stop`);
}

// The last results come before the status that says so.
function ended({ status, ended }) {
  progress();
  if (!ended || status !== "finished") return;
  by("ending").textContent = ended.by ? `${ended.reason} by ${ended.by}` : ended.reason;
  finish();
}

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
    const bar = by("bar");
    const [good, bad] = bar.children;
    const share = (count) => `${(100 * count) / Math.max(totals.count, 1)}%`;
    good.style.width = share(answered - failed);
    bad.style.width = share(failed);
    bar.ariaValueMax = totals.count;
    bar.ariaValueNow = answered;
    const failures = document.createElement("span");
    failures.className = "bad";
    if (failed) failures.textContent = `, ${failed} failed`;
    if (!stream && totals.count === 0) by("counts").textContent = "No query is running.";
    else by("counts").replaceChildren(`${answered} of ${totals.count} hosts answered`, failures, `, ${totals.online} online`);
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

by("stop").addEventListener("click", async () => {
  by("stop").disabled = true;
  try {
    await stop();
  } catch (error) {
    complain(query, `The query could not be stopped: ${error.message}`);
    running(Boolean(stream));
  }
});
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
