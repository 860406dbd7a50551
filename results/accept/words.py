"""Everything the acceptance page says, in English and Chinese. Values are filled in by `str.format`."""

from collections.abc import Iterable

from msgspec import Struct

from results.report.phrases import RULES_ZH, sentence


class Said(Struct, frozen=True):
    """One sentence in both languages."""

    en: str
    zh: str


NOTHING = Said("", "")

WORDS: dict[str, Said] = {
    # verdicts
    "met": Said("met", "符合"),
    "not_met": Said("not met", "不符合"),
    "undecided": Said("cannot be decided", "无法判定"),
    "accepted": Said("All clauses are met", "全部条款符合"),
    "refused": Said("At least one clause is not met", "至少一项条款不符合"),
    "open": Said("At least one clause cannot be decided", "至少一项条款无法判定"),
    # what is asked
    "ask_accuracy": Said("Accuracy on {task} is at least {limit}", "{task} 的准确率不低于 {limit}"),
    "ask_non_inferior": Said(
        "On {task} not worse than {reference} by more than {margin} points",
        "在 {task} 上比 {reference} 低不超过 {margin} 个百分点",
    ),
    "ask_first_token": Said(
        "{task}: time to the first text is at most {limit} for {percentile} % of requests",
        "{task}：{percentile}% 的请求在 {limit} 内出现首个文字",
    ),
    "ask_first_answer": Said(
        "{task}: time to the first text of the answer is at most {limit} for {percentile} % of requests",
        "{task}：{percentile}% 的请求在 {limit} 内出现回答的首个文字",
    ),
    "ask_user_speed": Said(
        "{task}: one user gets at least {limit} tokens/s in {share} of requests",
        "{task}：{share} 的请求中单个用户不低于 {limit} 词元/秒",
    ),
    "ask_throughput": Said(
        "{task}: all users together get at least {limit} tokens/s", "{task}：全部用户合计不低于 {limit} 词元/秒"
    ),
    "ask_memory_device": Said("Accelerator memory is at most {limit} GiB", "加速卡显存不超过 {limit} GiB"),
    "ask_memory_host": Said("Host memory is at most {limit} GiB", "主机内存不超过 {limit} GiB"),
    "ask_power": Said("Mean power under load is at most {limit} W", "负载下平均功率不超过 {limit} W"),
    "ask_cost_1k_samples": Said(
        "{task}: 1,000 answers cost at most {limit} {currency}",
        "{task}：每 1,000 个回答的成本不超过 {limit} {currency}",
    ),
    "ask_cost_correct": Said(
        "{task}: a correct answer costs at most {limit} {currency}",
        "{task}：每个正确回答的成本不超过 {limit} {currency}",
    ),
    "ask_validity": Said(
        "Every measurement keeps the rules of profile “{profile}”", "每次测量均符合“{profile}”档的有效性规则"
    ),
    "ask_evidence": Said("Power is read by a meter of class {limit} or better", "功率由 {limit} 级或更优的仪表读取"),
    # what was found
    "found_interval": Said("{value} ({lo} to {hi}), {n} items", "{value}（{lo} 至 {hi}），{n} 道题"),
    "found_difference": Said(
        "{value} points (one-sided limits {lo} and {hi}), {n} items",
        "{value} 个百分点（单侧限 {lo} 与 {hi}），{n} 道题",
    ),
    "found_share": Said("{share} of {n} requests ({lo} to {hi})", "{n} 个请求中的 {share}（{lo} 至 {hi}）"),
    "found_rate": Said("{value} tokens/s ({lo} to {hi})", "{value} 词元/秒（{lo} 至 {hi}）"),
    "found_memory": Said("{value} GiB in {step}", "{value} GiB（{step}）"),
    "found_power": Said(
        "{value} W ({lo} to {hi}), class {evidence}, {boundary}, in {step}",
        "{value} W（{lo} 至 {hi}），{evidence} 级，{boundary}，{step}",
    ),
    "found_cost": Said("{value} {currency} ({lo} to {hi})", "{value} {currency}（{lo} 至 {hi}）"),
    "found_valid": Said("{n} steps keep all rules", "{n} 个步骤符合全部规则"),
    "found_invalid": Said("{n} of {all} steps do not: {reasons}", "{all} 个步骤中有 {n} 个不符合：{reasons}"),
    "found_evidence": Said("class {value}", "{value} 级"),
    "found_estimate": Said("class {value}: an estimate", "{value} 级：估算值"),
    "found_ended": Said("{step} ended as {outcome}: {detail}", "{step} 以 {outcome} 结束：{detail}"),
    "found_unusable": Said("the measurement may not be used: {reasons}", "该测量不可采用：{reasons}"),
    "found_nothing": Said("nothing was measured: {reason}", "没有测得：{reason}"),
    "found_apart": Said("not comparable: {reasons}", "不可比较：{reasons}"),
    "why_items": Said("no item has a score", "没有已评分的题目"),
    "why_requests": Said("no request was generated under this load", "在该负载下没有生成任何请求"),
    "why_steady": Said("no steady state", "没有达到稳定状态"),
    "why_memory_device": Said("device memory was not read", "未读取加速卡显存"),
    "why_memory_host": Said("host memory was not read", "未读取主机内存"),
    "why_power": Said("no power was read", "未读取功率"),
    "why_power_some": Said("no power was read in some step", "有步骤未读取功率"),
    "why_draws": Said("too few draws have a correct answer", "有正确回答的模拟抽样太少"),
    # what would decide
    "decide_items": Said("about {n} more items", "约需再增加 {n} 道题"),
    "decide_never": Said("no number of items: the value lies on the limit", "增加题数无法判定：数值正在限值上"),
    "decide_requests": Said("about {n} more requests", "约需再增加 {n} 个请求"),
    "decide_longer": Said("a longer run or repeats under this load", "在该负载下更长时间或重复测量"),
    "decide_steady": Said("a run long enough for a steady state, or repeats", "足以达到稳定状态的更长测量，或重复测量"),
    "decide_meter": Said(
        "a power reading of a better class (wall meter M1, node sensor M2)",
        "更高等级的功率读数（墙上电表 M1、节点传感器 M2）",
    ),
    "decide_price": Said("a narrower range of “{name}” in the tariff", "费率表中“{name}”的范围更窄"),
    "decide_speed": Said("a longer run: the speed is the widest input", "更长时间的测量：速度是最不确定的输入"),
    "decide_again": Said("a run that keeps these rules", "一次符合这些规则的测量"),
    "decide_finish": Said("a run in which this step ends", "该步骤得以完成的测量"),
    "decide_same": Said("a reference measured on the same items in the same way", "以同样方式在同样题目上测得的参照"),
    "decide_reading": Said("a machine whose sensor can be read", "能够读取传感器的机器"),
    # the page
    "page_title": Said("Acceptance record", "验收记录"),
    "clause": Said("Clause", "条款"),
    "load": Said("load", "负载"),
    "required": Said("Required", "要求"),
    "found": Said("Found", "实测"),
    "verdict": Said("Verdict", "结论"),
    "would_decide": Said("What would decide it", "如何判定"),
    "buyer": Said("Buyer", "采购方"),
    "supplier": Said("Supplier", "供应方"),
    "contract": Said("Contract or tender", "合同或招标编号"),
    "machine": Said("Machine", "机器"),
    "deployment": Said("Model and deployment", "模型与部署"),
    "software": Said("Engine", "推理引擎"),
    "measured": Said("Measured", "测量时间"),
    "run": Said("Run", "运行记录"),
    "seal": Said("Seal of the measurement (SHA-256)", "测量封印（SHA-256）"),
    "spec_hash": Said("Specification (SHA-256)", "规格书（SHA-256）"),
    "tariff": Said("Tariff", "费率表"),
    "signature": Said("Name and signature", "姓名与签字"),
    "place_date": Said("Place and date", "地点与日期"),
    "rule_met": Said(
        "A clause is met when the whole {confidence} interval keeps the limit, not met when none of it does; in between it cannot be "
        "decided with these measurements. Memory is compared as read.",
        "当整个 {confidence} 置信区间满足限值时为符合，完全不满足时为不符合；介于两者之间时以现有测量无法判定。内存按读数比较。",
    ),
    "rule_seal": Said(
        "The seal is the hash over every record of the run; the report, which may be made anew, is left out. “verify” checks the files and "
        "prints the same seal; any later change of a record shows.",
        "封印是运行记录全部数据的哈希值，可重新生成的报告不计在内。用“verify”命令可核对文件并显示同一封印，任何记录此后的改动都会显示。",
    ),
    "rule_example": Said(
        "The tariff is an example that ships with the program, not a quote.", "所用费率表为程序附带的示例，并非报价。"
    ),
    "rule_synthetic": Said(
        "Items were written for this benchmark and not reviewed by a clinician: accuracy here is no evidence of clinical fitness.",
        "题目为本基准编写，未经临床医师审核：此处的准确率不能证明临床适用性。",
    ),
}


def reasons_said(sentences: Iterable[str]) -> Said:
    """Reasons in both languages, sentences of the validity rules (`A5: ...`) among them."""
    said = list(sentences)
    return Said("; ".join(said), "；".join(_chinese(text) for text in said))


def _chinese(text: str) -> str:
    """The sentence with its figures where it has a Chinese form, else the title of its rule; other words stay as they are."""
    rule, _, rest = text.partition(": ")
    if rule not in RULES_ZH:
        return sentence(text, "zh")
    translated = sentence(rest, "zh")
    return f"{rule}：{RULES_ZH[rule] if translated == rest else translated}"


def say(key: str, **values: object) -> Said:
    """The sentence with its values; `Said` among the values fills each language with its own."""
    words = WORDS[key]
    english = {k: v.en if isinstance(v, Said) else v for k, v in values.items()}
    chinese = {k: v.zh if isinstance(v, Said) else v for k, v in values.items()}
    return Said(words.en.format(**english), words.zh.format(**chinese))
