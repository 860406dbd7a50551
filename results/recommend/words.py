"""Everything that a recommendation says, in English and Chinese."""

from results.accept.words import Said

WORDS: dict[str, Said] = {
    "title": Said("What to run for a given load", "按给定负载推荐部署"),
    "demand": Said("Demand", "需求"),
    "answer": Said("Answer", "结论"),
    "best": Said(
        "{a} on {machine}: nodes {nodes} (spare {spare}); everything that is asked for is kept with probability {p}; {cost} {cur} a year "
        "({lo} to {hi}).",
        "{machine} 上的 {a}：{nodes} 个节点（含 {spare} 个备用），以 {p} 的概率满足全部要求；每年 {cost} {cur}（{lo} 至 {hi}）。",
    ),
    "tied": Said(
        "Not told apart from it by cost (within 2 %): {names}. Where they answer better, take them.",
        "成本上与之无法区分（2 % 以内）：{names}。若其中有更准确者，应选之。",
    ),
    "none": Said(
        "Nothing that was measured meets this demand as it is asked for. The reasons stand below, the nearest first.",
        "所测部署均不能按要求满足该需求。原因见下，最接近者在前。",
    ),
    "uncosted": Said("cost unknown", "成本未知"),
    "each": Said("Every deployment that was measured", "所有已测部署"),
    "deployment": Said("Deployment", "部署"),
    "machine": Said("Machine", "机器"),
    "meets": Said("Meets the demand", "满足需求"),
    "yes": Said("yes", "是"),
    "no": Said("no", "否"),
    "probability": Said("Probability", "概率"),
    "nodes": Said("Nodes (spare)", "节点（备用）"),
    "utilisation": Said("A node works, busiest hour / day", "节点工作占比，最忙小时 / 全天"),
    "capacity": Said("Requests an hour: one node at most / asked at the peak", "每小时请求数：单节点上限 / 峰值需求"),
    "year": Said("Cost of a year, {cur}", "每年成本，{cur}"),
    "correct": Said("Cost of 1,000 correct answers, {cur}", "每 1,000 个正确回答的成本，{cur}"),
    "why": Said("Why not", "不满足的原因"),
    "kept": Said("What was asked for and what was found", "要求与结果"),
    "work": Said("Work", "工作"),
    "requirement": Said("Requirement", "要求"),
    "value": Said("Found (95 %)", "结果（95 %）"),
    "accuracy": Said("accuracy at least {asked} %", "准确率不低于 {asked} %"),
    "ttft": Said("first text within {ms} for {asked} % of requests", "{asked} % 的请求在 {ms} 内出现首个文字"),
    "tpot": Said(
        "a further token every {ms} or faster for {asked} % of requests", "{asked} % 的请求每个后续词元不超过 {ms}"
    ),
    "hours": Said("Share of each hour in which a node works", "每小时内节点工作的占比"),
    "hour": Said("Hour", "时"),
    "how": Said("How it was found", "方法"),
    "checks": Said("Against measured open loads", "与实测开环负载对照"),
    "check": Said(
        "{deployment}, {load}: {predicted} s were predicted in the machine, {measured} s measured ({off}).",
        "{deployment}，{load}：预测停留 {predicted} s，实测 {measured} s（{off}）。",
    ),
    "no_check": Said(
        "No run has an open load (rate_per_s) of this work, so nothing here checks the queue against one. Measure two before you buy.",
        "没有任何运行在开环负载（rate_per_s）下测量过该工作，因此排队模型未经核对。购买前请测两个开环负载。",
    ),
    "rule_queue": Said(
        "The queue is computed from the speed measured at each number of requests in flight; beyond the largest measured number requests "
        "wait. Nothing is extrapolated: times at a load come from the next larger load that was measured.",
        "排队由每种并发数下实测的速度计算；超过最大实测并发数的请求排队等待。不作外推：某负载下的时间取自下一个更大的实测负载。",
    ),
    "rule_draws": Said(
        "{draws} draws over speed, power, items, prices and the demand; a demand is met where everything holds together in {confidence} of "
        "them. Times are those of requests that were sent to the machine, the network between is not in them.",
        "对速度、功率、题目、价格与需求作 {draws} 次抽样；在其中 {confidence} 全部成立即为满足。时间不含其间的网络。",
    ),
    "rule_tariff": Said("Prices: {name}, machine {machine}.", "价格：{name}，机器 {machine}。"),
    "rule_example": Said(
        "These prices are an example that ships with the program, not a quote.", "该价格为程序附带的示例，并非报价。"
    ),
    "rule_synthetic": Said(
        "Items were written for this benchmark and not reviewed by a clinician: accuracy here is no evidence of clinical fitness.",
        "题目为本基准编写，未经临床医师审核：此处的准确率不能证明临床适用性。",
    ),
    "asks": Said(
        "{work} ({task}): {n} requests a day, {peak} % of them in the busiest hour, in bursts ×{burst}",
        "{work}（{task}）：每天 {n} 个请求，最忙小时占 {peak} %，突发 ×{burst}",
    ),
    "why_task": Said("`{task}` was not measured", "未测 `{task}`"),
    "why_ranked": Said(
        "`{task}` was ranked by likelihood: no answers were written, so no time of one is known",
        "`{task}` 按似然排序：没有生成回答，故无从得知生成时间",
    ),
    "why_load": Said(
        "`{task}` has no valid measurement with a fixed number of requests in flight: {reasons}",
        "`{task}` 没有有效的固定并发测量：{reasons}",
    ),
    "why_prompts": Said(
        "{work}: prompts of {asked} tokens, and {seen} were measured; measure with prompts as long as yours",
        "{work}：提示 {asked} 个词元，而实测为 {seen}；请以同样长度的提示测量",
    ),
    "why_answers": Said(
        "{work}: answers of {asked} tokens, and {seen} were measured; measure with answers as long as yours",
        "{work}：回答 {asked} 个词元，而实测为 {seen}；请以同样长度的回答测量",
    ),
    "why_tpot": Said("{work}: the time of further tokens was not measured", "{work}：未测后续词元的时间"),
    "why_unscored": Said(
        "{work}: `{task}` has no scores, so its accuracy is unknown", "{work}：`{task}` 没有评分，准确率未知"
    ),
    "why_alone": Said(
        "a time limit is not kept even where a request has the machine to itself: no number of nodes helps",
        "即使单个请求独占机器也不能满足时间要求：增加节点无济于事",
    ),
    "why_nodes": Said("{n} nodes are not enough", "{n} 个节点仍不够"),
    "why_accuracy": Said(
        "{work}: accuracy {value} %, {asked} % are asked for (reached in {share} % of the draws)",
        "{work}：准确率 {value} %，要求 {asked} %（{share} % 的抽样达到）",
    ),
    "why_time": Said(
        "{work}: {what} in time for {value} % of the requests, {asked} % are asked for (kept in {share} % of the draws)",
        "{work}：{value} % 的请求 {what} 达标，要求 {asked} %（{share} % 的抽样成立）",
    ),
    "why_together": Said(
        "each requirement is kept, but not all of them together often enough", "各项要求分别满足，但同时满足的频度不够"
    ),
    "why_model": Said(
        "the queue's prediction is off by {off} % from a measured open load, and may not be believed beyond 15 %",
        "排队预测与实测开环负载相差 {off} %，超过 15 % 不可采信",
    ),
    "why_speed": Said("the speed of `{task}` is not known", "`{task}` 的速度未知"),
}


def say(key: str, **values: object) -> Said:
    """The sentence with its values in both languages; `Said` among the values fills each language with its own."""
    words = WORDS[key]
    english = {k: v.en if isinstance(v, Said) else v for k, v in values.items()}
    chinese = {k: v.zh if isinstance(v, Said) else v for k, v in values.items()}
    return Said(words.en.format(**english), words.zh.format(**chinese))
