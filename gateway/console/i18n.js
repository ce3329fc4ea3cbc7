// Every text of the console, in English and Chinese, side by side so that neither is forgotten.
const TEXTS = {
  now: ["Now", "现况"], stores: ["Stores", "门店"], campaigns: ["Campaigns", "活动"], vouchers: ["Voucher", "券"],
  events: ["Event stream", "事件流"], system: ["System", "系统"], load: ["Load test", "压测"],
  skip: ["Skip to content", "跳到内容"], sign_in: ["Sign in", "登录"], sign_out: ["Sign out", "退出"], token: ["Access token", "访问令牌"],
  token_help: ["Paste a token that begins with tg_. An administrator makes one with `tillgate token create`; the first one lies in the gateway's data directory, in secrets/admin.token.",
    "粘贴以 tg_ 开头的令牌。管理员用 `tillgate token create` 生成；第一个在网关数据目录的 secrets/admin.token。"],
  token_kept: ["It is kept in this tab only, and forgotten when the tab is closed.", "只保存在本标签页，关闭即清除。"],
  no_screens: ["This token's role ({0}) has no screens here.", "此令牌的角色（{0}）没有可看的页面。"],
  live: ["Live", "实时"], reconnecting: ["Reconnecting", "重连中"], light: ["Light", "浅色"], dark: ["Dark", "深色"], auto: ["System theme", "跟随系统"],
  theme: ["Theme: {0}", "主题：{0}"], language: ["中文", "English"], loading: ["Loading …", "加载中…"], retry: ["Try again", "重试"], back: ["Back", "返回"],
  scans_s: ["Scans a second", "每秒扫码"], minute_avg: ["{0} on average over the last minute", "最近一分钟平均 {0}"],
  p99: ["Answer time, p99", "应答时间 p99"], p50_is: ["half within {0}", "一半在 {0} 内"], tills: ["Tills connected", "在线终端"],
  unresolved_n: ["{0} asked to repeat, last minute", "最近一分钟 {0} 次需重试"], refused_share: ["Refused", "拒绝率"], of_minute: ["of {0} scans in the last minute", "最近一分钟 {0} 次扫码"],
  five_minutes: ["The last five minutes", "最近五分钟"], latency: ["Answer time", "应答时间"], mix: ["Outcomes of the last minute", "最近一分钟的结果"], quiet: ["No scans in the last minute.", "最近一分钟没有扫码。"],
  health: ["Health", "健康"], all_well: ["Everything is in order: scans are answered.", "一切正常：扫码可应答。"], not_ready: ["This gateway is not ready: scans are answered with “try again”.", "网关未就绪：扫码会得到“请重试”。"],
  draining: ["This gateway is leaving: tills are moving to another one.", "网关正在退出：终端正转移。"], behind: ["{0} batches are not counted yet", "还有 {0} 批未计入"],
  budget: ["Error budget left, since this gateway started", "剩余错误预算（自网关启动）"], availability: ["Answered", "有应答"], fast: ["Within 50 ms", "50 毫秒内"], tail: ["Within 250 ms", "250 毫秒内"],
  goal: ["goal {0}", "目标 {0}"], too_few: ["too few answers to tell", "样本太少"], bad_of: ["{0} of {1} missed it", "{1} 次中 {0} 次未达到"],
  store: ["Store", "门店"], last_scan: ["Last scan", "最近扫码"], per_minute: ["Scans a minute", "每分钟"], day: ["24 hours", "24 小时"], locked: ["locked", "已锁定"], filter: ["Filter", "筛选"], never: ["never", "从未"],
  no_stores: ["No store fits.", "没有符合的门店。"], of: ["{0} of {1}", "{0} / {1}"], terminal: ["Terminal", "终端"], label: ["Label", "名称"], state: ["State", "状态"], redeemed: ["Redeemed", "已核销"], refused: ["Refused", "被拒"], reversed: ["Reversed", "已撤销"], voided: ["Voided", "已作废"], issued: ["Issued", "已发行"],
  by_hour: ["By hour", "按小时"], reasons: ["Why scans were refused", "拒绝原因"], no_refusals: ["No scan was refused.", "没有被拒的扫码。"], merchant: ["Merchant", "商户"], connected: ["connected", "在线"], away: ["not connected", "离线"],
  d2: ["2 days", "2 天"], d7: ["7 days", "7 天"], d30: ["30 days", "30 天"], d90: ["90 days", "90 天"], hours_none: ["No scan in this time.", "此期间没有扫码。"],
  no_campaigns: ["There is no campaign yet.", "还没有活动。"], own_only: ["Counts are those of your own stores.", "仅统计自己的门店。"], funnel: ["From issued to redeemed", "从发行到核销"], in_hand: ["Still in customers' hands", "仍在顾客手中"], net: ["Redeemed and kept", "净核销"], best_stores: ["Stores, by redemptions", "门店排行"],
  forecast: ["Forecast", "预测"], pace: ["At the pace of its last day ({0} an hour)", "按最近一天的速度（每小时 {0}）"], by_end: ["{0} of {1} will be redeemed by {2}.", "到 {2} 将核销 {0} / {1}。"], sold_out: ["All will be redeemed by {0}.", "将在 {0} 前全部核销。"],
  ahead: ["{0} ahead of an even pace ({1} by now).", "比均匀速度（此刻应为 {1}）多 {0}。"], behind_plan: ["{0} behind an even pace ({1} by now).", "比均匀速度（此刻应为 {1}）少 {0}。"], no_forecast: ["No forecast: the campaign is not open.", "无预测：活动未开放。"], window: ["{0} to {1}", "{0} 至 {1}"],
  find_voucher: ["Voucher number, code, or redemption id", "券号、券码或核销编号"], find_redemption: ["Redemption id", "核销编号"], find: ["Look up", "查询"], code_note: ["A code is sent in the request's body only; it is never shown again and never in an address.", "券码只在请求体中发送，不再显示，也不会出现在网址里。"],
  life: ["Its life", "经历"], nothing_yet: ["Issued, and nothing happened to it since.", "已发行，尚无记录。"], kind: ["Kind of code", "码类型"], campaign: ["Campaign", "活动"], issued_by: ["Issued with request", "发行请求"], partition: ["Partition", "分区"], reversible_until: ["Can be reversed until", "可撤销至"],
  attempts: ["Look through the log for refused scans", "在日志中查找被拒扫码"], attempts_more: ["Look further back", "继续往前查"], attempts_none: ["No further scan of this voucher since {0}.", "自 {0} 以来没有其他扫码。"], attempts_range: ["Looked through batches {0} to {1}.", "已查 {0} 至 {1} 批。"],
  void: ["Void", "作废"], reverse: ["Reverse", "撤销核销"], void_title: ["Void voucher {0}?", "作废券 {0}？"], void_text: ["It can never be redeemed again. This cannot be undone.", "此后不能再核销，且不可恢复。"], reverse_title: ["Reverse the redemption of {0}?", "撤销券 {0} 的核销？"], reverse_text: ["The voucher can be redeemed again afterwards. The store is no longer paid for this redemption.", "之后可再次核销；该次核销不再与门店结算。"],
  reason: ["Reason (kept in the log)", "原因（记入日志）"], keep: ["Leave it as it is", "保持不变"], done_void: ["Voided.", "已作废。"], done_reverse: ["Reversed.", "已撤销。"], said_no: ["Not done: {0}.", "未执行：{0}。"], unsure: ["It is not known whether this was done. Send it again: nothing happens twice.", "不确定是否已执行。请再次发送：不会重复生效。"],
  op: ["What", "类型"], any: ["anything", "全部"], verdict: ["Outcome", "结果"], all_refused: ["all refusals", "全部拒绝"], pause: ["Pause", "暂停"], resume: ["Resume", "继续"], waiting: ["Waiting for events …", "等待事件…"], paused_n: ["Paused. {0} events came meanwhile.", "已暂停，期间有 {0} 条。"],
  left_out: ["{0} more events were not shown: there are more than can be read.", "另有 {0} 条未显示：多到看不过来。"], lost: ["This page was away or too slow: {0} events and {1} batches are not shown.", "本页离线或过慢：{0} 条事件和 {1} 批未显示。"], position: ["Position", "位置"], batch: ["Batch {0} of {1}", "第 {0} / {1} 批"], older: ["Older", "更早"], newer: ["Newer", "更新"], tip: ["Tip", "链尾"], prev: ["Previous tip", "前一链尾"], made: ["Made", "生成时间"], rows_left: ["{0} more records of this batch are not shown.", "本批另有 {0} 条未显示。"],
  redeem: ["redeem", "核销"], import: ["import", "导入"], control: ["control", "控制"],
  log: ["Event log", "事件日志"], indexed: ["Indexed", "已索引"], counted: ["Counted", "已计入"], size: ["Size", "大小"], disk_free: ["Free disk", "剩余磁盘"], valkey_silent: ["Valkey does not answer.", "Valkey 无应答。"], memory: ["Memory", "内存"], restarts: ["Restarts of the private Valkey", "内置 Valkey 重启次数"], connections: ["Connections", "连接数"], clock_offset: ["Clock offset", "时钟偏差"], role: ["Role", "角色"], primary: ["primary", "主"], replica: ["replica", "从"], aof: ["Append-only file", "追加文件"], failing: ["failing", "出错"], fine: ["fine", "正常"], evicted: ["Evicted keys", "淘汰键数"],
  worker: ["This gateway", "本网关"], version: ["Version", "版本"], uptime: ["Running since", "启动于"], loop_lag: ["Event loop late, p99", "事件循环延迟 p99"], viewers: ["Open consoles", "打开的控制台"], config: ["Configuration", "配置"], setting: ["Setting", "设置"], value: ["Value", "值"], unset: ["not set", "未设置"], runbooks: ["Runbooks", "操作手册"], no_runbooks: ["They lie in ops/runbooks of the source.", "见源码 ops/runbooks 目录。"],
  asked: ["Asked", "请求"], durable: ["Answered durably", "持久应答"], turned_away: ["Turned away or unknown", "拒载或未知"], in_flight: ["Messages in flight", "处理中"], per_batch: ["Records a batch", "每批记录"], commit: ["Commit, p99", "提交 p99"], cpu: ["Cores used", "CPU 核数"], load_note: ["As this gateway sees it, second by second: what it was asked, what it answered durably, and what one answer took. What still waits in the network is not in these curves; what was offered is in the report of a load run (tillgate load report).", "本网关所见，逐秒：收到多少、持久应答多少、耗时多少。尚在网络中的不计；压测发出的请求见压测报告（tillgate load report）。"], asked_vs: ["Asked and answered, a second", "每秒请求与应答"], cost: ["What it costs", "开销"],
  unreachable: ["The gateway cannot be reached.", "无法连接网关。"], gone: ["This token is not good any more. Sign in again.", "令牌已失效，请重新登录。"], not_here: ["There is nothing here.", "此处没有内容。"], ago_s: ["{0} s ago", "{0} 秒前"], ago_m: ["{0} min ago", "{0} 分钟前"], ago_h: ["{0} h ago", "{0} 小时前"], ago_d: ["{0} d ago", "{0} 天前"], just_now: ["just now", "刚刚"],
};
// What the log calls things, as people do.
const WORDS = {
  accepted: ["accepted", "通过"], redeemed: ["redeemed", "已核销"], repeated: ["repeated answer", "重复应答"], refused: ["refused", "被拒"], reversed: ["reversed", "已撤销"], tombstoned: ["reversed in advance", "提前撤销"], conflict: ["lost to another redemption", "离线冲突"], conflict_again: ["lost, told again", "离线冲突（重复）"], id_reused: ["id used twice", "编号重复"],
  terminal_locked: ["terminal locked", "终端锁定"], unreadable: ["unreadable code", "无法识读"], unknown_code: ["unknown code", "未知券码"], forged: ["forged code", "伪造券码"], not_issued: ["never issued", "未发行"], voided: ["voided", "已作废"], already_redeemed: ["already redeemed", "已被核销"], too_many_reversals: ["too many reversals", "撤销过多"],
  not_eligible: ["not valid in this store", "不适用本店"], closed: ["closed", "已关闭"], paused: ["paused", "已暂停"], not_yet_valid: ["not valid yet", "未到有效期"], expired: ["expired", "已过期"], outside_hours: ["outside its hours", "不在时段"], not_found: ["no such redemption", "无此核销"], not_yours: ["not theirs to reverse", "无权撤销"], window_over: ["too late to reverse", "超过撤销时限"], duplicate: ["belongs to another campaign", "属于其他活动"], unresolved: ["unknown, ask again", "未知，请重试"],
  denied: ["denied", "未执行"], imported: ["imported", "已导入"], open: ["open", "进行中"], purged: ["purged", "已清除"], not_yet: ["not begun", "未开始"], over: ["over", "已结束"], unused: ["unused", "未使用"], enrolled: ["enrolled", "已注册"], offered: ["waiting to enrol", "待注册"], locked: ["locked", "已锁定"], revoked: ["revoked", "已吊销"],
  admitting: ["admitting", "正常"], recovering: ["recovering", "恢复中"], halted: ["halted", "已停"], confirmed: ["confirmed", "已确认"], unconfirmed: ["unconfirmed", "未确认"], signed: ["signed", "签名码"], typed: ["typed", "数字码"], foreign: ["foreign", "外部码"], redeem: ["redeem", "核销"], reverse: ["reverse", "撤销"], void: ["void", "作废"], import: ["import", "导入"],
};

export const LANGUAGES = ["en", "zh"];
export let language = LANGUAGES.includes(localStorage.language) ? localStorage.language : navigator.language.startsWith("zh") ? "zh" : "en";
export const setLanguage = (wanted) => { language = localStorage.language = wanted; document.documentElement.lang = wanted === "zh" ? "zh-Hans" : "en"; };

const column = () => LANGUAGES.indexOf(language);
export const t = (key, ...values) => (TEXTS[key]?.[column()] ?? key).replace(/\{(\d)\}/g, (_, at) => values[at]);
export const word = (name) => WORDS[name]?.[column()] ?? name.replaceAll("_", " ");

// --- numbers and times, in the reader's own way ---
const locale = () => (language === "zh" ? "zh-CN" : navigator.language.startsWith("en") ? navigator.language : "en-GB");
export const count = (n) => n.toLocaleString(locale());
export const rate = (n) => n.toLocaleString(locale(), { maximumFractionDigits: n < 10 ? 1 : 0 });
export const percent = (share, digits = 1) => (100 * share).toLocaleString(locale(), { maximumFractionDigits: digits }) + " %";
export const ms = (n) => (n >= 1000 ? rate(n / 1000) + " s" : n.toLocaleString(locale(), { maximumFractionDigits: n < 10 ? 1 : 0 }) + " ms");
export const bytes = (n) => {
  const at = n > 0 ? Math.min(4, Math.floor(Math.log2(n) / 10)) : 0;
  return (n / 1024 ** at).toLocaleString(locale(), { maximumFractionDigits: at && n / 1024 ** at < 100 ? 1 : 0 }) + " " + ["B", "KiB", "MiB", "GiB", "TiB"][at];
};
export const money = (minor, currency) => {
  const digits = new Intl.NumberFormat("en", { style: "currency", currency }).resolvedOptions().maximumFractionDigits;
  return new Intl.NumberFormat(locale(), { style: "currency", currency }).format(minor / 10 ** digits);
};
export const clock = (at) => new Date(at).toLocaleTimeString(locale(), { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
export const moment = (at) => new Date(at).toLocaleString(locale(), { dateStyle: "medium", timeStyle: "medium", hour12: false });
export const day = (at) => new Date(at).toLocaleString(locale(), { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", hour12: false });
export const ago = (at, now = Date.now()) => {
  if (!at) return t("never");
  const s = Math.max(0, Math.round((now - at) / 1000));
  if (s < 5) return t("just_now");
  if (s < 90) return t("ago_s", s);
  if (s < 5400) return t("ago_m", Math.round(s / 60));
  return s < 129600 ? t("ago_h", Math.round(s / 3600)) : t("ago_d", Math.round(s / 86400));
};
