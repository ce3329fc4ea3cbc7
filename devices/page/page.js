// The cashier's page: shows the newest whole state the till sent, and sends back what was typed, seen or undone.
import { WORDS } from "./words.js";
import { Sound } from "./sound.js";
import { Camera } from "./camera.js";

const SILENCE_MS = 6000; // three beats of the till missed: it is gone, whatever the network says
const RETRY_MS = 700;
const OLD_MS = 10000; // a verdict that has stood this long is history: its colour steps back
const ASK_MS = 10000; // an undo that nobody confirms is forgotten
const $ = (id) => document.getElementById(id);
const root = document.documentElement;
const sound = new Sound();
const camera = new Camera($("video"), (code) => send({ do: "see", code }), cameraEnded);

let shown = null; // the newest state; null: the till is not there
let socket = null;
let heardAt = 0;
let clockOff = 0; // the till's clock minus this device's
let tones = null; // how many the till had sounded: more is a new one
let asking = ""; // the redemption whose undo is to be confirmed
let askedAt = 0;
let pairText = null;
let cameraSays = "";
let started = false; // the page was touched: it may sound

const chosen = () => localStorage.getItem("language") || shown?.language || "en";
const words = () => WORDS[chosen()] ?? WORDS.en;
const pick = (both) => both?.[chosen()] ?? "";
const text = (id, value) => { if ($(id).textContent !== value) $(id).textContent = value; };
const show = (id, value) => { text(id, value); $(id).hidden = !value; };

// --- the line to the till ---

function send(message) {
  const open = socket?.readyState === WebSocket.OPEN;
  if (open) socket.send(JSON.stringify(message));
  return open;
}

async function connect() {
  try {
    const me = await (await fetch("me")).json();
    $("pairing").hidden = me.paired;
    if (!me.paired) { draw(); return void setTimeout(connect, 3000); }
  } catch { return void setTimeout(connect, RETRY_MS); }
  const line = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/live`);
  socket = line;
  heardAt = Date.now();
  line.onopen = () => { if (camera.on) send({ do: "camera", on: true }); };
  line.onmessage = (event) => { heardAt = Date.now(); take(JSON.parse(event.data)); };
  line.onclose = () => { if (socket === line) lose(); };
}

function lose() {
  const line = socket;
  socket = shown = null;
  line?.close();
  draw();
  setTimeout(connect, RETRY_MS);
}

function take(message) {
  if (message.beat) clockOff = message.beat - Date.now();
  else if ("pair" in message) { pairText = message; draw(); }
  else {
    const fresh = shown && shown.boot === message.boot && message.view.tones > tones;
    shown = message;
    tones = message.view.tones;
    if (fresh) sounded(message.view.tone);
    draw();
  }
}

function sounded(tone) {
  sound.play(tone);
  root.dataset.tone = tone;
  if (asking && tone !== "none") asking = ""; // a scan goes before a question
  scrollTo(0, 0); // a phone may stand at the last scans
}

// --- what is shown ---

function draw() {
  root.lang = chosen() === "zh" ? "zh" : "en";
  drawScene();
  drawFrame();
  drawBanners();
  drawRecents();
  age();
  fit();
}

// The longest text must be whole on the smallest screen: everything shrinks a little until it is.
function fit() {
  const scene = $("scene"), head = $("head");
  for (let size = 1; size > 0.45; size -= 0.06) {
    scene.style.setProperty("--fit", size.toFixed(2));
    if (scene.scrollHeight <= scene.clientHeight && head.scrollWidth <= head.clientWidth) return;
  }
}

function drawScene() {
  const gone = { kind: "gone", head: both("gone"), rest: both("goneRest") };
  const scene = shown ? shown.view.scene : gone;
  root.dataset.kind = scene.kind;
  $("icon").firstElementChild.setAttribute("href", `#i-${scene.kind}`);
  text("head", pick(scene.head));
  text("worth", pick(scene.worth));
  text("rest", pick(scene.rest));
  text("used", pick(scene.used).replaceAll("-", "\u2011") + (scene.used_ms ? ` (${ago(scene.used_ms)})` : ""));
  text("note", scene.note ?? "");
  text("tail", scene.tail ?? "");
  document.title = `${pick(scene.head)} · Tillgate`;
  const late = shown?.view.late;
  const { late: before, stop } = words();
  show("late", late ? `${before} ${late.tail}: ${pick(late.head)}${stop}${pick(late.rest)} ${pick(late.used)}` : "");
  $("late").dataset.kind = late?.kind ?? "";
  show("notice", pick(shown?.view.notice));
}

function both(key) {
  return { en: WORDS.en[key], zh: WORDS.zh[key] };
}

function drawFrame() {
  const said = words();
  text("where", shown ? `${shown.view.store} · ${said.till} ${shown.terminal}`.replace(/^ · /, "") : "Tillgate");
  const online = shown?.view.online ?? null;
  const queue = shown?.queue ? ` · ${shown.queue} ${said.waiting}` : "";
  text("line", online === null ? "" : (online ? said.online : said.offline) + queue);
  $("line").dataset.online = online;
  text("camera-button", camera.on ? said.cameraOff : said.cameraOn);
  text("sound-button", sound.muted ? said.soundOff : sound.silent ? said.silent : said.soundOn);
  $("sound-button").toggleAttribute("data-ask", sound.silent);
  $("sound-button").setAttribute("aria-pressed", String(!sound.muted));
  text("language-button", said.other);
  $("language-button").lang = chosen() === "zh" ? "en" : "zh";
  text("pair-button", said.pair);
  $("pair-button").hidden = location.protocol !== "https:" || !shown;
  text("recents-title", said.last);
  text("code-label", said.type);
  text("code-button", said.send);
  text("digits-label", said.pairLabel);
  text("digits-button", said.pairSend);
  $("camera").hidden = !camera.on && !cameraSays;
  $("video").hidden = !camera.on;
  text("camera-says", camera.on ? said.cameraLook : cameraSays);
  document.body.classList.toggle("seeing", camera.on);
}

function drawBanners() {
  const said = words(), rows = [];
  if (shown?.view.full) rows.push([said.full, "bad"]);
  if (shown?.view.online === false) {
    rows.push([(root.dataset.kind === "offline" ? said.offlineGranted : said.offlineBanner) + (shown.queue ? ` ${said.queue(shown.queue)}` : ""), ""]);
  }
  for (const name of shown?.view.lost ?? []) rows.push([said.lost(name), "bad"]);
  if (pairText) rows.push([pairText.pair ? said.pairHere(pairText.pair, pairText.minutes) : said.pairNone, "mild"]);
  const key = JSON.stringify(rows);
  if ($("banners").dataset.key === key) return;
  $("banners").dataset.key = key;
  $("banners").replaceChildren(...rows.map(([line, look]) => {
    const row = element("p", line);
    if (look) row.dataset[look] = "";
    return row;
  }));
}

function drawRecents() {
  const list = shown?.recents ?? [];
  const key = JSON.stringify([list, asking, chosen()]);
  if ($("recents").dataset.key === key) return;
  $("recents").dataset.key = key;
  const rows = list.map((one) => (one.redemption_id === asking ? askRow(one) : recentRow(one)));
  $("recents").replaceChildren(...(rows.length ? rows : [element("li", words().none, "none")]));
}

function recentRow(one) {
  const row = element("li");
  row.dataset.kind = one.kind;
  const time = new Date(one.at_ms).toLocaleTimeString(chosen() === "zh" ? "zh-CN" : "en-GB");
  row.append(icon(one.kind), element("b", pick(one.head)), element("small", `${one.tail}  ${time}`));
  if (one.reversible) {
    const acts = element("span", "", "acts");
    const button = pressed(words().undo, () => ask(one.redemption_id));
    button.setAttribute("aria-label", `${words().undo} ${one.tail}`);
    acts.append(button);
    row.append(acts);
  }
  return row;
}

function askRow(one) {
  const row = element("li", "", "asking");
  const acts = element("span", "", "acts");
  const yes = pressed(words().undoYes, () => { ask(""); send({ do: "undo", redemption_id: one.redemption_id }); });
  yes.className = "strong";
  acts.append(yes, pressed(words().undoNo, () => ask("")));
  row.append(element("b", `${words().undoAsk} ${one.tail}`), acts);
  return row;
}

function ask(redemptionId) {
  asking = redemptionId;
  askedAt = Date.now();
  drawRecents();
  if (asking) $("recents").querySelector(".asking button").focus();
}

function age() {
  const at = shown?.view.scene.at_ms;
  const passed = at ? Date.now() + clockOff - at : 0;
  root.toggleAttribute("data-old", Boolean(at) && passed > OLD_MS && !["checking", "kept"].includes(root.dataset.kind));
  text("age", at ? ago(at) : "");
}

function ago(at) {
  const form = new Intl.RelativeTimeFormat(chosen() === "zh" ? "zh-CN" : "en", { numeric: "auto" });
  const s = Math.min(0, Math.round((at - Date.now() - clockOff) / 1000));
  if (s > -60) return form.format(s, "second");
  if (s > -3600) return form.format(Math.ceil(s / 60), "minute");
  return s > -86400 ? form.format(Math.ceil(s / 3600), "hour") : form.format(Math.ceil(s / 86400), "day");
}

function element(name, content = "", className = "") {
  const made = document.createElement(name);
  made.textContent = content;
  made.className = className;
  return made;
}

function pressed(label, act) {
  const button = element("button", label);
  button.type = "button";
  button.addEventListener("click", act);
  return button;
}

function icon(kind) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#i-${kind}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

// --- what people do ---

async function startSound() {
  await sound.start();
  drawFrame();
}

function soundPressed() {
  if (sound.muted || started) sound.mute(!sound.muted); // the first touch of the page only starts it
  started = true;
  startSound();
}

function cameraEnded(error) { // unplugged, taken back by the browser, or its reader failed
  cameraSays = error ? `${words().cameraFault} ${error.name}` : words().cameraGone;
  send({ do: "camera", on: false });
  draw();
}

async function switchCamera() {
  cameraSays = "";
  if (camera.on) camera.stop();
  else {
    try {
      await camera.start();
    } catch (error) {
      cameraSays = words()[error.name] ?? `${words().cameraFault} ${error.name}`;
    }
  }
  send({ do: "camera", on: camera.on });
  draw();
}

$("typed").addEventListener("submit", (event) => {
  event.preventDefault();
  const code = $("code").value.trim();
  if (!code || send({ do: "code", code })) $("code").value = ""; // without a till it stays, to be sent later
});
$("pairing").addEventListener("submit", async (event) => {
  event.preventDefault();
  const digits = $("digits").value;
  $("digits").value = "";
  const answer = await fetch("pair", { method: "POST", body: digits }).catch(() => null);
  text("digits-says", answer?.ok ? "" : words().pairWrong);
});
$("camera-button").addEventListener("click", switchCamera);
$("pair-button").addEventListener("click", () => send({ do: "pair" }));
$("sound-button").addEventListener("click", soundPressed);
$("language-button").addEventListener("click", () => {
  localStorage.setItem("language", chosen() === "zh" ? "en" : "zh");
  draw();
});
document.addEventListener("click", (event) => { // not on its way down: a button that moves then would be missed
  if (event.target.closest("#sound-button")) return;
  started = true;
  startSound();
});
document.addEventListener("keydown", (event) => {
  started = started || !event.target.closest("#sound-button");
  startSound();
  if (event.key === "Escape" && asking) ask("");
  const elsewhere = event.target.closest("input, button") || event.ctrlKey || event.metaKey || event.altKey;
  if (!elsewhere && event.key.length === 1 && event.key !== " ") $("code").focus(); // typing is typing a code
});
setInterval(() => {
  if (socket && Date.now() - heardAt > SILENCE_MS) lose();
  if (asking && Date.now() - askedAt > ASK_MS) ask("");
  age();
}, 500);
addEventListener("resize", fit);
draw();
connect();
