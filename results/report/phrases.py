"""Sentences of the validity rules and of the costs in Chinese. They are made in English, with figures inside, so a pattern stands for each.

A sentence without a pattern stays in English; a rule always has its title.
"""

import re
from functools import cache

RULES_ZH: dict[str, str] = {
    "A1": "环境指纹完整且首尾一致",
    "A2": "权重、分词器与对话模板均有哈希",
    "A3": "实际使用的设备即所要求的设备",
    "A4": "所用加速器上没有其他进程",
    "A5": "主机的其他负载、交换与磁盘余量",
    "A6": "时间顺序正确；与外部仪表的时钟偏差",
    "A7": "CPU 调速器",
    "A8": "功率上限、时钟、ECC、MIG 未改变",
    "A9": "单元未以崩溃、超时或内存不足结束",
    "A10": "不可纠正的内存错误",
    "B1": "所有计划的请求均已结束；失败数",
    "B2": "token 由引擎计数",
    "B4": "在 token 上限处被截断的回答",
    "B5": "思考部分已闭合、非空",
    "B6": "陷入重复的回答",
    "B7": "采样方式与计划一致",
    "B8": "提示与回答不超出上下文",
    "B9": "未声明时不使用提示缓存",
    "B10": "再次提问的题目没有更快得到回答",
    "B11": "推测解码",
    "B12": "抢占",
    "C1": "稳态时长",
    "C2": "百分位数所需的请求数",
    "C3": "测量前已预热",
    "C4": "速度稳定",
    "C5": "开环：请求准时发出",
    "C6": "开环：未过饱和",
    "C7": "首个 token 时间取自文本",
    "C8": "解码速度不超过内存带宽所允许的上限",
    "C9": "测量方自身的负载",
    "C10": "各次重复一致",
    "C11": "功率采样无缺口",
    "C12": "声称占满引擎批次的负载确实占满",
    "D1": "等级、边界与接口均已说明",
    "D2": "能量窗口时长",
    "D3": "窗口前后读到所有应有的设备",
    "D4": "计数器只增不减",
    "D5": "计数器与功率采样对照",
    "D6": "功率合理",
    "D7": "时钟未因过热或功率受限而降低",
    "D9": "前后的空闲功率",
    "D10": "整卡功率不归于其中一个切片",
    "D11": "能量、token 与时间属于同一窗口",
    "D12": "实测而非估计",
    "D13": "与壁装功率计比对",
    "D14": "加速器功率的范围",
    "E1": "内存属于我们的进程，而非整卡",
    "E2": "预留型引擎的缓存用量",
    "E3": "各部分之和与预留相符",
    "E4": "预测与实测相符",
    "E5": "测量期间模型在内存中（CPU）",
    "E6": "加载前的页缓存状态已记录",
    "F1": "所有计划的回答均已评分",
    "F2": "采样型推理模型每题的回答数",
    "F3": "未找到答案",
    "F4": "评分器版本唯一",
    "F5": "给出区间",
    "F6": "聚类已声明并使用",
    "F8": "只按计划中的规则提前结束",
    "F9": "对选项位置的偏倚",
    "F10": "评分器认识该语言的词",
    "F11": "指标出错记为错误而非零分",
    "F12": "评审模型与已标注语句一致，且与被评模型不同系列",
    "F13": "题目的来源",
}

PHRASES_ZH: tuple[tuple[str, str], ...] = (
    (r"p(\d+) needs (\d+) values, (\d+) were seen", r"p\1 需要 \2 个值，只有 \3 个"),
    (r"the step was never started: (\w+)(?:, (.*))?", r"该步骤从未开始：\1 \2"),
    (r"the step was cut: (\w+)(?:, (.*))?", r"该步骤被中断：\1 \2"),
    (r"skipped: (.*)", r"跳过：\1"),
    (r"the step did not end", "该步骤未结束"),
    (
        r"ended early after (\d+) of (\d+) items: different from (.*) \(e-value (.*)\)",
        r"在 \2 题中的第 \1 题后提前结束：与 \3 不同（e 值 \4）",
    ),
    (
        r"ended early after (\d+) of (\d+) items: as good as (.*) within the margin .*",
        r"在 \2 题中的第 \1 题后提前结束：与 \3 的差在界值之内",
    ),
    (r"the run has no end; resume it", "运行未结束；请续跑"),
    (r"nothing was judged", "未作任何评分"),
    (r"no answer was correct", "没有正确的回答"),
    (r"power is unknown and the tariff declares none", "功率未知，费率中也未申报"),
    (r"the draw at rest is unknown and the tariff declares none", "空闲功率未知，费率中也未申报"),
    (r"power of the node as declared in the tariff, not measured", "节点功率取自费率申报，未实测"),
    (r"draw at rest as declared in the tariff, not measured", "空闲功率取自费率申报，未实测"),
    (r"power of (.+) only: the rest of the node is not in the cost", r"仅含 \1 的功率：节点其余部分未计入成本"),
    (r"no power meter covers it", "没有功率仪表覆盖该部分"),
    (r"the server is remote and none of its meters was given", "服务器在远端，未提供其仪表"),
    (
        r"power is an estimate \(class (E\d), (.+) to (.+) J\): no ranking of energy",
        r"功率为估计值（\1 级，\2 至 \3 J）：能耗不参与排名",
    ),
    (r"the steady state is ([\d.]+) s long, (\d+) s are asked for(.*)", r"稳态为 \1 s，要求 \2 s"),
    (r"too few requests for a steady state(.*)", "请求太少，没有稳态"),
    (r"(\d+) requests at (\d+) in flight, (\d+) are asked for(.*)", r"并发 \2 时有 \1 个请求，要求 \3 个"),
    (r"energy over ([\d.]+) s; (\d+) s keep the edges' error small", r"能量窗口 \1 s；\2 s 才能使边缘误差足够小"),
    (r"measured (\d+) MiB, the plan foresaw (\d+) MiB \((.+)\)", r"实测 \1 MiB，计划预计 \2 MiB（\3）"),
    (r"recall depends on the position of the right option \((.+)\)", r"召回率随正确选项的位置而变（\1）"),
    (r"the items were written for this project and not reviewed by a clinician", "题目为本项目撰写，未经临床医生审核"),
    (
        r"the items were public before the models were trained: .*",
        "题目在模型训练前已公开：绝对水平不能作为临床能力的证据",
    ),
    (r"the load of other processes was not read", "未读取其他进程的负载"),
    (
        r"whether the weights were in the page cache before loading was not recorded: .*",
        "未记录加载前权重是否在页缓存中：加载时间不作比较",
    ),
    (
        r"([\d.]+) tokens/s is more than memory bandwidth allows \(([\d.]+)\): a count is wrong",
        r"\1 token/s 超过内存带宽所允许的 \2：计数有误",
    ),
    (r"no answer could be found in (\d+) of (\d+)", r"\2 个回答中有 \1 个找不到答案"),
    (r"(\d+) of (\d+) requests failed", r"\2 个请求中有 \1 个失败"),
    (r"(\d+) requests were planned, (\d+) came to an end", r"计划 \1 个请求，\2 个已结束"),
    (r"(\d+) of (\d+) planned answers were scored", r"计划 \2 个回答中有 \1 个已评分"),
    (r"the answers were not scored", "回答未评分"),
    (r"speed was not steady: five parts of the window differ by (\d+%)(.*)", r"速度不稳定：窗口的五个部分相差 \1"),
    (r"the cell ended later as (\w+)", r"该单元后来以 \1 结束"),
    (r"the environment's fingerprint was not taken at both ends of the cell", "未在单元首尾都取得环境指纹"),
    (r"the environment changed during the cell: (.*)", r"单元运行期间环境发生变化：\1"),
    (r"the CPU's governor is not told .*", "未提供 CPU 调速器（虚拟机中常见）"),
    (r"other processes used ([\d.]+) of ([\d.]+) cores", r"其他进程占用 \2 个核心中的 \1 个"),
    (r"the draw at rest was not read both before and after", "未在前后都读取空闲功率"),
    (r"the draw at rest was ([\d.]+) W before and ([\d.]+) W after", r"空闲功率：之前 \1 W，之后 \2 W"),
    (r"before this step the engine had served (.+); (.+) are asked for", r"此步骤之前引擎已处理 \1；要求 \2"),
    (r"the sensors were not compared with a wall meter: .*", "传感器未与壁装功率计比对：绝对值以制造商声明为准"),
    (r"the sensors were last compared with a wall meter on (.*)", r"传感器上次与壁装功率计比对的日期：\1"),
    (r"(.+) is not told", r"未提供：\1"),
    (r"([\d.]+) GB of disk were free when the run began", r"运行开始时磁盘仅余 \1 GB"),
    (
        r"(.+): ([\d.]+) W is more than the enforced limit of ([\d.]+) W allows",
        r"\1：\2 W 超过强制上限 \3 W 所允许的范围",
    ),
    (r"(.+): a reading of ([\d.]+) W, the board is rated ([\d.]+) W", r"\1：读数 \2 W，该卡额定 \3 W"),
    (
        r"(\d+) of (\d+) references score less than 1 against themselves, down to ([\d.]+): .*",
        r"\2 个参考文本中有 \1 个与自身比较的得分低于 1（最低 \3）：评分器不认识其中的词",
    ),
    (r"the engine does not echo its sampling settings", "引擎不回显其采样设置"),
    (r"no interval can be given: too few independent items", "独立题目太少，无法给出区间"),
    (r"(\d+) of (\d+) answers (?:were|are) cut at the token limit(.*)", r"\2 个回答中有 \1 个在 token 上限处被截断"),
    (r"no prediction or no reading", "没有预测或没有读数"),
    (r"signal (\d+)", r"信号 \1"),
    (r"exit code (\d+)", r"退出码 \1"),
    (r"oom", "内存不足"),
    (r"timeout", "超时"),
    (r"crashed", "崩溃"),
    (r"interrupted", "中断"),
    (r"needs ([\d.]+) GiB, ([\d.]+) are free", r"需要 \1 GiB，仅有 \2 GiB 可用"),
    (r"no sign of progress for (.+) s while (loading|running)", r"在 \1 s 内没有进展（\2）"),
    (r"the engine could not get the memory it needs", "引擎无法获得所需的内存"),
    (r"smallest memory: (.*)", r"最小内存：\1"),
    (r"not provided for (\S+)", r"不支持 \1"),
    (
        r"not provided for (\S+) on (.+): a limit of the address space .*",
        r"不支持 \2 上的 \1：地址空间上限不限制加速器的显存",
    ),
    (r"the encoder is not said to know (\w+) .*", r"未声明编码模型认识 \1"),
    (r"no judge was asked", "未请评审模型"),
    (r"the figures of `(.+)` are withheld: (.*)", r"`\1` 的数值不予显示：\2"),
    (r"the summaries were not judged: (.*)", r"总结未经评审：\1"),
    (r"judge and judged are of one family \((.+)\)", r"评审模型与被评模型属同一系列（\1）"),
    (
        r"the judge does not agree with the labels well enough: kappa (.+), accuracy (.+) on (\d+) labelled statements .*; "
        r"needed: .* (\S+)",
        r"评审模型与标注的一致性不足：\3 条标注语句上 kappa \1，准确率 \2；要求下限 \4",
    ),
    (r"the names do not tell whether judge and judged are of one family", "名称无法说明评审模型与被评模型是否同一系列"),
    (r"not provided on (\S+): .*", r"\1 上不支持：地址空间上限需要 Linux"),
)


@cache
def _patterns() -> tuple[tuple[re.Pattern[str], str], ...]:
    return tuple((re.compile(pattern), chinese) for pattern, chinese in PHRASES_ZH)


def sentence(text: str, lang: str) -> str:
    """The sentence in the language; what has no pattern stays as it is. A leading rule id (`C8: `) is kept, parts by ` | ` are apart."""
    if lang == "en" or not text:
        return text
    if " | " in text:
        return "；".join(sentence(part, lang) for part in text.split(" | "))
    rule, colon, rest = text.partition(": ")
    if colon and rule in RULES_ZH:
        return f"{rule}：{sentence(rest, lang)}"
    for pattern, chinese in _patterns():
        if found := pattern.fullmatch(text):
            parts = [sentence(g or "", lang) for g in found.groups()]
            return re.sub(r"\\(\d)", lambda m, p=parts: p[int(m[1]) - 1], chinese).strip()  # type: ignore[misc]
    return text


def rule_title(rule: str, english: str, lang: str) -> str:
    """What a rule is about."""
    return english if lang == "en" else RULES_ZH[rule]
