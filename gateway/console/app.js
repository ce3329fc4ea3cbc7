// The frame: signing in, which screen, the one live stream of this tab, language and theme.
import { render } from "preact";
import { useEffect, useState } from "preact/hooks";
import { ask, forgetToken, keepToken, listen, token } from "./api.js";
import { language, setLanguage, t, word } from "./i18n.js";
import { Notice, Waiting, html } from "./ui.js";
import { Now } from "./now.js";
import { Stores, Store } from "./stores.js";
import { Campaigns, Campaign } from "./campaigns.js";
import { Vouchers } from "./vouchers.js";
import { Events, Batch } from "./events.js";
import { System } from "./system.js";
import { Load } from "./load.js";

const base = new URL(".", import.meta.url).pathname;
const ICONS = {
  now: "M3 13h4l3-8 4 14 3-6h4", stores: "M4 10v10h16V10M3 10l2-6h14l2 6a3 3 0 0 1-6 0 3 3 0 0 1-6 0 3 3 0 0 1-6 0",
  campaigns: "M4 20V10m5 10V4m5 16v-7m5 7V8", vouchers: "M4 7h16v3a2 2 0 0 0 0 4v3H4v-3a2 2 0 0 0 0-4zM14 7v10",
  events: "M4 6h16M4 12h10M4 18h13", system: "M5 4h14v6H5zM5 14h14v6H5zM8 7h.01M8 17h.01", load: "M4 18a8 8 0 1 1 16 0M12 18l4-6",
};
const SCREENS = { now: Now, stores: Stores, campaigns: Campaigns, vouchers: Vouchers, events: Events, system: System, load: Load };
const INNER = { stores: Store, campaigns: Campaign, vouchers: Vouchers, events: Batch };
const TOPIC = { stores: "stores", campaigns: "campaigns", load: "load" };
const THEMES = ["auto", "light", "dark"];

const place = () => location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
const applyTheme = (theme) => { if (theme === "auto") delete document.documentElement.dataset.theme; else document.documentElement.dataset.theme = theme; };

function Tools({ onSignOut, redraw, where = "" }) {
  const theme = THEMES.includes(localStorage.theme) ? localStorage.theme : "auto";
  const next = THEMES[(THEMES.indexOf(theme) + 1) % 3];
  return html`<div class=${`tools ${where}`}>
    <button type="button" class="plain" lang=${language === "zh" ? "en" : "zh-Hans"} onClick=${() => { setLanguage(language === "zh" ? "en" : "zh"); redraw(); }}>${t("language")}</button>
    <button type="button" class="plain" onClick=${() => { localStorage.theme = next; applyTheme(next); redraw(); }} aria-label=${t("theme", t(theme))} title=${t("theme", t(theme))}>${{ auto: "◐", light: "☀", dark: "☾" }[theme]}</button>
    ${onSignOut && html`<button type="button" class="plain" onClick=${onSignOut}>${t("sign_out")}</button>`}</div>`;
}

function SignIn({ onToken, fault, redraw }) {
  const [text, setText] = useState("");
  return html`<main class="door"><form class="card" onSubmit=${(event) => { event.preventDefault(); onToken(text.trim()); }}>
    <header><div class="brand"><img src=${base + "icon.svg"} alt="" />Tillgate</div><${Tools} redraw=${redraw} /></header>
    <h1>${t("sign_in")}</h1>
    <label>${t("token")}<input type="password" name="token" autocomplete="off" spellcheck=${false} required value=${text} onInput=${(event) => setText(event.target.value)} autofocus /></label>
    ${fault && html`<${Notice} as="bad">${fault}<//>`}
    <button class="primary" type="submit">${t("sign_in")}</button>
    <p class="muted small">${t("token_help")} ${t("token_kept")}</p></form></main>`;
}

function App() {
  const [, setRound] = useState(0), redraw = () => setRound((n) => n + 1);
  const [me, setMe] = useState(null), [fault, setFault] = useState(""), [at, setAt] = useState(place()), [bearer, setBearer] = useState(token());
  const leave = (why = "") => { forgetToken(); setBearer(null); setMe(null); setFault(why); };
  const enter = (text) => ask("/console/api/me", undefined, text).then(
    (found) => { keepToken(text); setFault(""); setBearer(text); setMe(found); },
    (problem) => leave(problem.code ? problem.message : t("unreachable")));
  useEffect(() => {
    const moved = () => setAt(place());
    addEventListener("hashchange", moved);
    if (bearer) enter(bearer);
    return () => removeEventListener("hashchange", moved);
  }, []);
  useEffect(() => { document.title = `${t(at[0] in SCREENS ? at[0] : "now")} · Tillgate`; });
  if (!bearer) return html`<${SignIn} onToken=${enter} fault=${fault} redraw=${redraw} />`;
  if (!me) return html`<main class="door"><${Waiting} fault=${fault && new Error(fault)} again=${() => enter(bearer)} /></main>`;
  return html`<${Frame} me=${me} at=${at} leave=${leave} redraw=${redraw} />`;
}

function Frame({ me, at, leave, redraw }) {
  const screen = me.screens.includes(at[0]) ? at[0] : me.screens[0];
  const inner = at[0] === screen ? at.slice(1).filter(Boolean) : [];
  const [live, setLive] = useState(null), [told, setTold] = useState({}), [query, setQuery] = useState("");
  useEffect(() => { document.querySelector(".nav [aria-current]")?.scrollIntoView({ inline: "center", block: "nearest" }); }, [screen]);
  const topics = [me.screens.includes("now") && "now", inner.length ? null : TOPIC[screen], screen === "events" && !inner.length && "tail"].filter(Boolean);
  const line = `topics=${topics.join(",")}${screen === "events" && !inner.length ? query : ""}`;
  useEffect(() => {
    if (!topics.length) return undefined;
    setTold((old) => ({ now: old.now }));
    return listen(line, {
      onState: setLive, onGone: () => leave(t("gone")),
      onEvent: (name, body) => (name === "bye" ? null : setTold((old) => ({ ...old, [name]: body, serial: (old.serial ?? 0) + 1 }))),
    });
  }, [line]);
  if (!me.screens.length) return html`<main class="door"><div class="card"><${Notice} as="warn">${t("no_screens", me.role)}<//><button type="button" onClick=${() => leave()}>${t("sign_out")}</button></div></main>`;
  const Screen = inner.length && INNER[screen] ? INNER[screen] : SCREENS[screen];
  const now = told.now, tools = (where) => html`<${Tools} where=${where} onSignOut=${() => leave()} redraw=${redraw} />`;
  return html`<a class="skip" href="#main" onClick=${(event) => { event.preventDefault(); document.getElementById("main").focus(); }}>${t("skip")}</a>
  <div class="shell"><div class="side"><div class="brand"><img src=${base + "icon.svg"} alt="" />Tillgate${tools("narrow")}</div>
    <nav class="nav" aria-label="Tillgate">${me.screens.map((name) => html`<a href=${`#/${name}`} key=${name} aria-current=${name === screen ? "page" : null}>
      <svg viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="1.8" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true"><path d=${ICONS[name]} /></svg>${t(name)}</a>`)}</nav>
    <div class="who small muted"><span>${word(me.role)}${me.scope && html` · <b class="wrap">${me.scope}</b>`}</span><span class="wrap">${me.actor}</span>${me.version !== "unknown" && html`<span>${me.version}</span>`}</div></div>
  <main class="main" id="main" tabindex="-1"><div class="top"><h1 class="grow">${t(screen)}</h1>
      ${now && !now.ready && html`<span class="pill bad">${now.draining ? t("draining").split(/[:：]/)[0] : t("not_ready").split(/[:：]/)[0]}</span>`}
      <span class=${`pill ${live ? "good live" : "warn"}`} role="status"><span class="dot"></span>${live ? t("live") : t("reconnecting")}</span>
      ${tools("wide")}</div>
    <${Screen} key=${screen + inner.join("/") + language} me=${me} told=${told} inner=${inner} setQuery=${setQuery} /></main></div>`;
}

applyTheme(localStorage.theme);
setLanguage(language);
render(html`<${App} />`, document.getElementById("app"));
