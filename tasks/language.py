"""Which language an answer is in, and whether it is a refusal. Rules, not models: the same text gets the same flag for
ever.
"""

import re

from tasks.base import Language

_HAN = re.compile(r"[\u3400-\u9fff]")
_LATIN_WORD = re.compile(r"[A-Za-zÀ-ÖØ-öø-ÿ]{2,}")

MIN_UNITS = 8
"""Fewer words and characters than this ("B", "答案：B") are of no language."""

REFUSAL_HEAD_CHARS = 250

_REFUSAL = re.compile(
    r"""\b(?:i|we)(?:\ ?['’]?m|\ am|\ are)?\ (?:can(?:no|['’])?t|can\ not|won['’]t|will\ not|(?:not\ able|unable)\ to
            |(?:must\ )?decline\ to)
            \ (?:help|assist|provide|answer|summari[sz]e|comply|fulfil|give|offer|create|generate|discuss|do|process|write|complete)
        |\bas\ an?\ (?:ai|artificial|language\ model|large\ language)
        |\bi\s?['’]?(?:m|\ am)\ (?:very\ |so\ )?sorry,?\ (?:but\ )?(?:i|this|that)\b
        |^\W*(?:很|非常|十分)?(?:抱歉|对不起|不好意思)
        |(?:我|作为[^。\n]{0,12}(?:AI|人工智能|语言模型|助手|助理)[^。\n]{0,8}?)(?:暂时|目前|恐怕|并)?
            (?:无法|不能|不便|没有办法|没法|不可以)(?:为您|为你|对此|直接|给您|给你|就此|继续)?
            (?:回答|提供|总结|协助|帮助|完成|处理|生成|满足|给出|讨论|撰写|参与)""",
    re.IGNORECASE | re.VERBOSE,
)


def is_refusal(text: str) -> bool:
    """Whether the model says near the beginning that it will not or cannot do what it was asked. "The patient is unable
    to walk" is none.
    """
    return _REFUSAL.search(text[:REFUSAL_HEAD_CHARS].strip()) is not None


def is_wrong_language(text: str, wanted: Language) -> bool:
    """Whether more of the text is in the other language. Counts Chinese characters against words in Latin letters, so
    that abbreviations and units in a Chinese note do no harm. Tells Chinese from Latin scripts only: an answer in
    French passes for English.
    """
    han, latin = len(_HAN.findall(text)), len(_LATIN_WORD.findall(text))
    if han + latin < MIN_UNITS:
        return False
    return han > latin if wanted == "en" else latin > han
