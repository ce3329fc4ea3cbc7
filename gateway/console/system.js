// System: the log, what follows it, Valkey, this worker, its configuration, and where the runbooks are.
import { Card, Facts, Notice, Pill, Waiting, html, useAsked } from "./ui.js";
import { bytes, count, moment, ms, t } from "./i18n.js";

export function System() {
  const asked = useAsked("/console/api/system", 2000), system = asked.body;
  if (!system) return html`<${Waiting} ...${asked} />`;
  const valkey = system.valkey;
  return html`
  ${system.troubles.map((text) => html`<${Notice} as="bad" key=${text}><span class="wrap">${text}</span><//>`)}
  ${system.counting && html`<${Notice} as="warn"><span class="wrap">${system.counting}</span><//>`}
  <div class="grid">
    <${Card} title=${t("log")} span=${7} more=${html`<span class="muted small">${bytes(system.log_bytes)} · ${t("disk_free")} ${bytes(system.disk_free_bytes)}</span>`}>
      <div class="scroll" role="region" aria-label=${t("log")} tabindex="0"><table><thead><tr><th scope="col">${t("partition")}</th><th scope="col">${t("state")}</th><th scope="col" class="num">${t("position")}</th><th scope="col" class="num">${t("indexed")}</th><th scope="col" class="num">${t("counted")}</th></tr></thead>
      <tbody>${system.partitions.map((row) => html`<tr key=${row.partition}><td>${row.partition}</td><td><${Pill} name=${row.state} />${row.why && html`<span class="sub wrap">${row.why}</span>`}</td><td class="num">${count(row.seq)}</td>
        <td class="num">${row.indexed < row.seq ? `−${count(row.seq - row.indexed)}` : "✓"}</td><td class="num">${row.counted < row.seq ? `−${count(row.seq - row.counted)}` : "✓"}</td></tr>`)}</tbody></table></div><//>
    <${Card} title="Valkey" span=${5}>${valkey ? html`<${Facts} rows=${[[t("memory"), bytes(valkey.used_memory_bytes) + (valkey.memory_limit_bytes ? ` / ${bytes(valkey.memory_limit_bytes)}` : "")], [t("role"), html`<${Pill} name=${valkey.is_primary ? t("primary") : t("replica")} as=${valkey.is_primary ? "good" : "bad"} />`], [t("aof"), html`<${Pill} name=${valkey.aof_is_failing ? t("failing") : t("fine")} as=${valkey.aof_is_failing ? "bad" : "good"} /> ${bytes(valkey.aof_bytes)}`], [t("evicted"), count(valkey.evicted_keys)], [t("connections"), count(valkey.connections)], [t("clock_offset"), ms(Math.abs(valkey.clock_offset_s * 1000))], [t("restarts"), count(system.valkey_restarts)]]} />` : html`<${Notice} as="bad">${t("valkey_silent")}<//>`}<//>
    <${Card} title=${t("worker")} span=${5}><${Facts} rows=${[[t("version"), `${system.version} · Python ${system.python}`], ["pid", String(system.pid)], [t("uptime"), moment(system.started_ms)], [t("memory"), bytes(system.memory_bytes)], [t("loop_lag"), ms(system.lag_p99_ms)], [t("tills"), count(system.tills)], [t("viewers"), count(system.viewers)], [t("state"), system.draining ? t("draining") : t("fine")]]} /><//>
    <${Card} title=${t("config")} span=${7}><${Facts} rows=${Object.entries(system.config).map(([key, value]) => [html`<code>${key}</code>`, value === "" ? html`<span class="muted">${t("unset")}</span>` : html`<span class="mono wrap">${value}</span>`])} /><//>
    <${Card} title=${t("runbooks")}>${system.runbooks.length ? html`<p class="wrap">${system.runbooks.map((name) => html`<a key=${name} class="pill" target="_blank" rel="noopener" href=${`/console/runbooks/${encodeURIComponent(name)}`}>${name}</a> `)}</p>` : html`<p class="muted">${t("no_runbooks")}</p>`}<//>
  </div>`;
}
