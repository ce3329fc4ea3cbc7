// Small pieces that every screen is made of.
import { h } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import htm from "htm";
import { ask } from "./api.js";
import { count, percent, t, word } from "./i18n.js";

export const html = htm.bind(h);

const GOOD = ["accepted", "redeemed", "open", "enrolled", "admitting", "confirmed", "connected", "imported"];
const WARN = ["reversed", "tombstoned", "voided", "paused", "not_yet", "offered", "recovering", "unconfirmed", "repeated"];
const PLAIN = ["unused", "over", "closed", "purged", "redeem", "reverse", "void", "import"];
export const tone = (name) => (GOOD.includes(name) ? "good" : WARN.includes(name) ? "warn" : PLAIN.includes(name) ? "" : "bad");

export const Pill = ({ name, as }) => html`<span class=${`pill ${as ?? tone(name)}`}>${word(name)}</span>`;
export const Card = ({ title, span = 12, more, children, ...rest }) => html`<section class=${`card c${span}`} ...${rest}>
  ${title && html`<header><h2>${title}</h2>${more}</header>`}${children}</section>`;
export const Stat = ({ label, value, unit, note, span = 3, children }) => html`<section class=${`card stat c${span}`}>
  <div class="label">${label}</div><div class="value">${value}${unit && html`<small> ${unit}</small>`}</div><div class="note">${note}</div>${children}</section>`;
export const Notice = ({ as = "", children }) => html`<div class=${`notice ${as}`} role=${as === "bad" ? "alert" : "status"}>${children}</div>`;
export const Bar = ({ share, as = "" }) => html`<div class="bar"><i class=${as} style=${{ width: `${Math.max(0, Math.min(1, share)) * 100}%` }}></i></div>`;

// Named amounts as bars, the longest first.
export function Bars({ amounts, of, as, empty }) {
  const rows = Object.entries(amounts).filter(([, n]) => n > 0);
  if (!rows.length) return html`<p class="empty">${empty}</p>`;
  const whole = of ?? rows.reduce((sum, [, n]) => sum + n, 0);
  const longest = Math.max(...rows.map(([, n]) => n));
  return html`<div class="bars">${rows.map(([name, n]) => html`<div class="row" key=${name}>
    <span class="wrap">${word(name)}</span><span class="num"><b>${count(n)}</b> <span class="muted small">${percent(n / whole)}</span></span>
    <${Bar} share=${n / longest} as=${as ?? tone(name)} /></div>`)}</div>`;
}

// Rows sorted by whichever column's heading was pressed. columns: {key, label, num, wide, of(row) -> sort value, show(row)}
export function Table({ columns, rows, first, empty, label, go }) {
  const [order, setOrder] = useState(first);
  const [key, down] = order;
  const column = columns.find((one) => one.key === key);
  const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b) : a - b);
  const sorted = [...rows].sort((a, b) => (down ? -1 : 1) * compare(column.of(a), column.of(b)));
  if (!rows.length) return html`<p class="empty">${empty}</p>`;
  const sorting = (one) => (one.key === key ? (down ? "descending" : "ascending") : "none");
  const side = (one) => `${one.num ? "num" : ""} ${one.wide ? "wide" : ""}`;
  return html`<div class="scroll" role="region" aria-label=${label} tabindex="0"><table><thead><tr>${columns.map((one) => html`<th class=${side(one)} aria-sort=${sorting(one)} scope="col" key=${one.key}>
      <button type="button" onClick=${() => setOrder([one.key, one.key === key ? !down : Boolean(one.num)])}>${one.label}${one.key === key ? (down ? " ↓" : " ↑") : ""}</button></th>`)}</tr></thead>
    <tbody>${sorted.map((row) => html`<tr key=${go(row)} class="go">${columns.map((one) => html`<td class=${side(one)} key=${one.key}>${one.show(row)}</td>`)}</tr>`)}</tbody></table></div>`;
}

export const Segments = ({ value, onPick, options, label }) => html`<div class="segments" role="group" aria-label=${label}>${options.map(([name, text]) => html`
  <button type="button" key=${name} aria-pressed=${String(name === value)} onClick=${() => onPick(name)}>${text}</button>`)}</div>`;

export const Facts = ({ rows }) => html`<dl class="facts">${rows.filter(Boolean).map(([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>`)}</dl>`;

// What a path answers: asked at once, again when `path` changes, and every `every` ms. {body, fault, again}
export function useAsked(path, every = 0) {
  const [state, setState] = useState({ path });
  const [round, setRound] = useState(0);
  useEffect(() => {
    let gone = false;
    ask(path).then((body) => gone || setState({ path, body }), (fault) => gone || setState((old) => ({ ...old, path, fault })));
    const timer = every ? setTimeout(() => setRound((n) => n + 1), every) : 0;
    return () => { gone = true; clearTimeout(timer); };
  }, [path, round]);
  return { body: state.path === path ? state.body : undefined, fault: state.path === path ? state.fault : undefined, again: () => setRound((n) => n + 1) };
}

export const Waiting = ({ fault, again }) => fault
  ? html`<${Notice} as="bad"><span>${fault.code ? fault.message : t("unreachable")}</span> <button type="button" onClick=${again}>${t("retry")}</button></${Notice}>`
  : html`<p class="empty" role="status">${t("loading")}</p>`;

export function Dialog({ onClose, children }) {
  const at = useRef();
  useLayoutEffect(() => { at.current.showModal(); }, []);
  return html`<dialog ref=${at} aria-labelledby="dialog-title" onCancel=${onClose} onClick=${(event) => event.target === at.current && onClose()}>${children}</dialog>`;
}

export function useTick(every) {
  const [, setRound] = useState(0);
  useEffect(() => { const timer = setInterval(() => setRound((n) => n + 1), every); return () => clearInterval(timer); }, [every]);
}
