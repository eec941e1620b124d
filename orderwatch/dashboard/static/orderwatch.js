// What a page without a script cannot do: stay fresh, send actions as JSON, keep relative times right, take keys.
const body = document.body;
const said = body.dataset;
const cookie = (name) => document.cookie.split("; ").find((part) => part.startsWith(name + "="))?.slice(name.length + 1);

// -- relative times, by the server's clock --------------------------------------------------------------------------

const ahead = said.now ? Date.parse(said.now) - Date.now() : 0;
const relative = new Intl.RelativeTimeFormat(document.documentElement.lang, { numeric: "always" });
const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];

function tellTimes() {
  for (const time of document.querySelectorAll("time[data-relative]")) {
    const seconds = (Date.parse(time.dateTime) - Date.now() - ahead) / 1000;
    const [unit, size] = UNITS.find(([, size]) => Math.abs(seconds) >= 1.5 * size) ?? UNITS[3];
    const text = relative.format(Math.round(seconds / size), unit);
    if (time.textContent !== text) time.textContent = text;
  }
}
tellTimes();
setInterval(tellTimes, 1000);

// -- live parts: an event says that something moved, the page itself says what ---------------------------------------

const LEAST_MS = 1500, IDLE_MS = 10000;
let asked = 0, planned = null, failed = 0;

function plan(ms) {
  if (planned !== null) return;
  planned = setTimeout(() => { planned = null; refresh(); }, Math.max(ms, asked + LEAST_MS - Date.now()));
}

async function refresh() {
  if (document.hidden || document.querySelector("dialog[open]")) return plan(IDLE_MS);
  asked = Date.now();
  document.getElementById("main").classList.add("busy");
  try {
    const answer = await fetch(location.href, { headers: { "x-live": "1" } });
    if (answer.redirected && new URL(answer.url).pathname === "/login") return location.reload();
    if (!answer.ok) throw new Error(answer.status);
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of document.querySelectorAll("[data-live]")) {
      const made = fresh.getElementById(part.id);
      if (made && made.innerHTML !== part.dataset.shown) exchange(part, made);
    }
    for (const dialog of document.querySelectorAll("main dialog")) {
      const made = fresh.getElementById(dialog.id);
      if (made) dialog.innerHTML = made.innerHTML; else dialog.remove();
    }
    for (const made of fresh.querySelectorAll("main dialog")) {
      if (!document.getElementById(made.id)) document.getElementById("main").append(made);
    }
    failed = 0;
    tellTimes();
  } catch { failed += 1; }
  document.getElementById("main").classList.remove("busy");
  show();
}

function exchange(part, made) {
  const focused = part.contains(document.activeElement) ? [...part.querySelectorAll("a, button, summary")].indexOf(document.activeElement) : -1;
  const open = [...part.querySelectorAll("details")].map((one) => one.open);
  part.dataset.shown = made.innerHTML;
  part.replaceChildren(...made.childNodes);
  part.querySelectorAll("details").forEach((one, n) => { one.open = open[n] ?? one.open; });
  if (focused >= 0) [...part.querySelectorAll("a, button, summary")][focused]?.focus({ preventScroll: true });
}

let streaming = false;
function show() {
  const sign = document.getElementById("live");
  if (!sign) return;
  sign.hidden = false;
  const well = streaming && failed === 0;
  sign.classList.toggle("off", !well);
  sign.textContent = well ? sign.dataset.on : sign.dataset.off;
}

const live = document.querySelectorAll("main [data-live]");
const newer = document.getElementById("newer");
// A browser opens six connections to one server, for all its tabs together, so one tab listens and tells the others.
const tabs = new BroadcastChannel("orderwatch-live");
let stream = null;

function hear(text) {
  if (newer) newer.hidden = false;
  const told = JSON.parse(text || "{}");
  const mine = document.querySelector("[data-live-order]")?.dataset.liveOrder;
  if (live.length && (!mine || mine === `${told.tenant_id}/${told.order_id}`)) plan(200);
}

function turn(now) {
  streaming = now;
  show();
}

function lead() {
  stream = new EventSource("/api/live");
  for (const kind of ["status", "attention"]) {
    stream.addEventListener(kind, (event) => { hear(event.data); tabs.postMessage({ text: event.data }); });
  }
  for (const [kind, now] of [["open", true], ["error", false]]) {
    stream.addEventListener(kind, () => { turn(now); tabs.postMessage({ now }); });
  }
  return new Promise(() => {}); // for as long as this page is there
}

if (body.classList.contains("inside")) {
  tabs.addEventListener("message", ({ data }) => {
    if (data.hello) { if (stream) tabs.postMessage({ now: streaming }); }
    else if ("now" in data) turn(data.now);
    else hear(data.text);
  });
  tabs.postMessage({ hello: true });
  if (navigator.locks) navigator.locks.request("orderwatch-live", lead); else lead();
  addEventListener("pagehide", () => stream?.close());
  document.addEventListener("visibilitychange", () => { if (live.length) plan(0); });
  if (live.length) setInterval(() => plan(0), IDLE_MS);
}

// -- dialogs and actions ---------------------------------------------------------------------------------------------

function unique() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function open(button) {
  const dialog = document.getElementById(button.dataset.open);
  dialog.querySelectorAll("[data-unique]").forEach((field) => { field.value = unique(); });
  dialog.querySelectorAll("[data-fill]").forEach((field) => { field.value = button.getAttribute("data-fill-" + field.dataset.fill); });
  dialog.querySelectorAll("[data-show]").forEach((list) => list.replaceChildren());
  tell(dialog, "", "");
  dialog.showModal();
}

function tell(place, text, kind) {
  const line = place.querySelector(".said");
  if (!line) return;
  line.className = "said " + kind;
  line.textContent = text;
}

const KINDS = {
  number: Number,
  numbers: (text) => text.split(" ").filter(Boolean).map(Number),
  list: (text) => text.split(" ").filter(Boolean),
  json: JSON.parse,
};

function document_(form) {
  const made = {};
  for (const field of form.querySelectorAll("[name]")) {
    if (field.type === "radio" && !field.checked) continue;
    if (field.value.trim() === "" && ("optional" in field.dataset || field.name === "reason")) continue;
    made[field.name] = (KINDS[field.dataset.kind] ?? String)(field.value.trim());
  }
  return made;
}

async function send(form, more) {
  let asked_;
  const asking = [...form.elements].filter((field) => !(more?.dry_run && field.name === "reason"));
  if (!asking.every((field) => field.reportValidity())) return;
  try { asked_ = document_(form); } catch { return tell(form, said.saidRefused + ": JSON", "refused"); }
  tell(form, said.saidSending, "");
  const buttons = [...form.querySelectorAll("[data-send], [data-dry]")];
  buttons.forEach((button) => { button.disabled = true; });
  try {
    const answer = await fetch(form.dataset.post, {
      method: "POST",
      headers: { "content-type": "application/json", "x-csrf-token": cookie("orderwatch_csrf") ?? "" },
      body: JSON.stringify({ ...asked_, ...more }),
    });
    heard(form, answer, await answer.json().catch(() => ({})), more);
  } catch {
    tell(form, said.saidFailed, "refused");
  } finally {
    buttons.forEach((button) => { button.disabled = false; });
  }
}

function heard(form, answer, told, more) {
  if (!answer.ok) return tell(form, `${said.saidRefused}: ${told.detail ?? answer.status}`, "refused");
  fill(form, told);
  if (told.done === false) tell(form, `${said.saidRefused}: ${told.said ?? ""}`, "refused");
  else if (answer.status === 202) tell(form, said.saidReceived, "");
  else if ("letters" in told) tell(form, counted(told), told.dry_run ? "" : "done");
  else if ("steps" in told) tell(form, told.said, told.integration ? "done" : "");
  else tell(form, `${said.saidDone}. ${told.said ?? ""}`, "done");
}

// What a replay did, or would do and cost.
function counted(told) {
  const costs = Object.entries(told.expected_cost ?? {}).map(([currency, amount]) => `${amount} ${currency}`);
  return [
    told.dry_run ? "" : `${said.saidSent}: ${told.sent}`,
    told.not_sent ? `${said.saidKept}: ${told.not_sent}` : "",
    costs.length || !told.cost_not_known ? `${said.saidCost}: ${costs.join(" + ") || "0"}` : "",
    told.cost_not_known ? `${said.saidUnpriced}: ${told.cost_not_known}` : "",
    told.more ? said.saidMore : "",
  ].filter(Boolean).join(" · ");
}

function fill(form, told) {
  const list = form.querySelector("[data-show]") ?? form.parentElement.querySelector("[data-show]");
  const rows = list && told[list.dataset.show];
  if (!Array.isArray(rows)) return;
  list.replaceChildren(...rows.map((row) => (list.dataset.show === "steps" ? step(row, list) : outcome(row))));
}

function make(tag, text = "", attributes = {}) {
  const made = Object.assign(document.createElement(tag), attributes);
  made.textContent = text;
  return made;
}

function outcome(row) {
  if (typeof row === "string") return make("li", row);
  return make("li", [row.id, row.said].join(" · "), { dir: "auto" });
}

// One step of the test of a route: what it is, whether an order would pass it, and its values as they would leave.
function step(row, list) {
  const names = JSON.parse(list.dataset.names), line = make("li"), text = make("div");
  const sign = row.ok === null ? "–" : row.ok ? "✓" : "✕";
  line.append(make("div", sign, { className: "dot " + (row.ok === false ? "bad" : "") }), text);
  const title = make("p");
  title.append(make("strong", names[row.step] ?? row.step), " ", make("small", row.integration ?? "", { dir: "ltr" }));
  text.append(title);
  const state = row.ok === null ? list.dataset.unreached : row.ok ? "" : list.dataset.stops;
  if (row.said || state) text.append(make("p", [state, row.said].filter(Boolean).join(": "), { dir: "auto" }));
  if (row.request) text.append(make("pre", row.request, { className: "proof", dir: "ltr" }));
  return line;
}

document.addEventListener("click", (event) => {
  const target = event.target.closest("button, [data-open]");
  if (!target) return;
  if (target.dataset.open) { event.preventDefault(); open(target); }
  else if ("close" in target.dataset) { event.preventDefault(); target.closest("dialog").close(); }
  else if ("send" in target.dataset) { event.preventDefault(); send(target.closest("form"), target.closest("form").querySelector("[data-dry]") ? { dry_run: false } : undefined); }
  else if ("dry" in target.dataset) { event.preventDefault(); send(target.closest("form"), { dry_run: true }); }
});
document.addEventListener("submit", (event) => {
  if (!event.target.dataset.post) return;
  event.preventDefault();
  event.target.querySelector("[data-send]").click();
});
document.addEventListener("close", () => plan(0), true);

// -- theme and keys --------------------------------------------------------------------------------------------------

const theme = document.getElementById("theme");
if (theme) {
  const THEMES = ["auto", "light", "dark"];
  let now = document.documentElement.dataset.theme ?? "auto";
  const name = () => { theme.querySelector("span").textContent = theme.dataset[now]; };
  theme.hidden = false;
  name();
  theme.addEventListener("click", () => {
    now = THEMES[(THEMES.indexOf(now) + 1) % THEMES.length];
    if (now === "auto") delete document.documentElement.dataset.theme; else document.documentElement.dataset.theme = now;
    document.cookie = `orderwatch_theme=${now}; path=/; max-age=31536000; samesite=lax`;
    name();
  });
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select") || document.querySelector("dialog[open]")) return;
  if (event.key === "/") { event.preventDefault(); document.getElementById("find")?.focus(); }
  else if (event.key === "?") { document.getElementById("keys")?.showModal(); }
  else if (event.key === "j" || event.key === "k") {
    const rows = [...document.querySelectorAll("[data-row] .main, section[data-row] a")];
    const at = rows.findIndex((row) => row.closest("[data-row]").contains(document.activeElement));
    const next = rows[event.key === "j" ? at + 1 : Math.max(at - 1, 0)];
    next?.focus();
    next?.scrollIntoView({ block: "nearest" });
  }
});
