"""What the cashier reads about accepting without a connection, in English and Chinese. Pure."""

from gateway.messages import Verdict

SAY = {
    "accepted_offline": (
        "ACCEPTED OFFLINE: genuine, and within this till's limits. Give the value; it is settled when the line is up.",
        "离线核销：券码真实且在本机限额内。请按券面内容兑现，恢复连接后结算。",
    ),
    "same_scan_offline": (
        "the same scan, read twice: accepted offline once",
        "同一次扫码读到两遍：只离线核销了一次",
    ),
    "offline_used_here": (
        "ALREADY USED HERE: this till gave the value of this voucher before. Give nothing.",
        "本机已核销：此券已在本机兑现过。请勿交付商品或给予优惠。",
    ),
    "offline_not_verifiable": (
        "NOT ACCEPTED OFFLINE: this kind of code can only be checked with a connection. Kept, and asked later.",
        "离线不可核销：此类券码需联网验证。已保存，恢复后查询。",
    ),
    "offline_strange_key": (
        "NOT ACCEPTED OFFLINE: the code is signed with a key this till does not know. Kept, and asked later.",
        "离线不可核销：券码签名所用密钥本机未知。已保存，恢复后查询。",
    ),
    "offline_bad_signature": (
        "NOT ACCEPTED OFFLINE: the code's signature is not right. Kept, and asked later; give nothing.",
        "离线不可核销：券码签名不符。已保存，恢复后查询，请勿兑现。",
    ),
    "offline_not_allowed": (
        "NOT ACCEPTED OFFLINE: the voucher's campaign does not allow it here. Kept, and asked later.",
        "离线不可核销：此活动不允许在本店离线核销。已保存，恢复后查询。",
    ),
    "offline_not_issued": (
        "NOT ACCEPTED OFFLINE: this till does not know of this voucher's issue. Kept, and asked later.",
        "离线不可核销：本机没有此券的发行记录。已保存，恢复后查询。",
    ),
    "offline_clock": (
        "NOT ACCEPTED OFFLINE: this till's clock cannot be trusted. Kept, and asked later; have the clock set.",
        "离线不可核销：本机时钟不可信。已保存，恢复后查询，请校准时钟。",
    ),
    "offline_too_long": (
        "NOT ACCEPTED OFFLINE: too long without a connection for this campaign. Kept, and asked later.",
        "离线不可核销：断线时间已超过此活动的上限。已保存，恢复后查询。",
    ),
    "offline_expired": (
        "NOT ACCEPTED OFFLINE: this voucher's time is over. Kept, and asked later.",
        "离线不可核销：此券已过可用时间。已保存，恢复后查询。",
    ),
    "offline_not_now": (
        "NOT ACCEPTED OFFLINE: this voucher is not valid at this hour. Kept, and asked later.",
        "离线不可核销：此券当前时段不可用。已保存，恢复后查询。",
    ),
    "offline_count": (
        "NOT ACCEPTED OFFLINE: this till has reached its number of offline vouchers. Kept, and asked later.",
        "离线不可核销：本机离线核销数量已达上限。已保存，恢复后查询。",
    ),
    "offline_value": (
        "NOT ACCEPTED OFFLINE: this till has reached its value of offline vouchers. Kept, and asked later.",
        "离线不可核销：本机离线核销金额已达上限。已保存，恢复后查询。",
    ),
}
FACT = {
    Verdict.ACCEPTED: (
        "SETTLED: what was accepted offline stands.",
        "已结算：离线核销有效。",
    ),
    Verdict.CONFLICT: (
        "CONFLICT: accepted offline, but another redemption came first. Keep the receipt; call your supervisor.",
        "冲突：已离线核销，但此券已先在别处核销。请保留小票并联系主管。",
    ),
    Verdict.REVERSED: (
        "UNDONE: what was accepted offline does not stand.",
        "已撤销：此笔离线核销不成立。",
    ),
    Verdict.UNRESOLVED: (
        "NOT SETTLED YET: no answer. This till goes on telling of it.",
        "尚未结算：暂无结果，本机会继续上报。",
    ),
}
NEW_FACT = (
    "NOT HONOURED: accepted offline, refused for reason {number}. Keep the receipt; call your supervisor.",
    "未被认可：已离线核销，拒绝原因代码 {number}。请保留小票并联系主管。",
)
