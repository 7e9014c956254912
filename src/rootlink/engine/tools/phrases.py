"""Words that speak to a model over its user's head, in a text that only has to say what a tool does.

A rule is groups of words; it applies where one sentence holds one of each group. Words of languages that write spaces are looked
for whole, which the blanks around them say; nothing else is searched for, so the time is that of reading the text.

Rules
- It is told what the words do ("asks to keep something from the user"), not whether they are meant badly: a person decides.
- What a good server says too is no rule: IMPORTANT, always, must, "call this first", "don't show raw ids". Rules need the object
  as well: instructions that are not the server's, tools that are not its own, secrets that are not a parameter's.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from rootlink.engine.tools import looks

NEAR = 5
MOST_LOOKS = 30_000  # a rule at a sentence; no honest definition comes near
_SENTENCE = re.compile(r"[.!?]+(?=\s|$)|[。！？؟\n\r]+|\\n")
_APOSTROPHES = re.compile("['’ʼ`´]")
_NO_WORD = re.compile(r"(?:[^\w~$@:/<>|\[\]{}%#.-]|\.(?!\w))+")


class Rule(NamedTuple):
    """`groups`: of each one must be there. `unless`: none of these may be. `near`: a word of the second group stands within
    `NEAR` words after one of the first."""

    says: str
    groups: tuple[tuple[str, ...], ...]
    unless: tuple[str, ...] = ()
    near: bool = False


def _words(text: str) -> tuple[str, ...]:
    return tuple(f" {word} " for word in text.split())


def _stems(text: str) -> tuple[str, ...]:
    return tuple(f" {stem}" for stem in text.split())


OVERRULES = "tells the model to disregard its instructions"
KEEPS_SECRET = "asks to keep something from the user"
COMES_FIRST = "wants to be called before tools that are not its own"
STEERS = "gives orders about other tools"
COLLECTS = "asks for what is not its business: the conversation, the model's instructions, other tools"
SECRETS = "asks for secrets or for files with secrets"
CONSENT = "claims an agreement of the user's"
AUTHORITY = "claims an authority, or threatens"
SENDS = "tells the model to send data somewhere"
TURNS = "is written as if another turn of the conversation, or another instance, were speaking"
ENCODED = "holds an encoded text"
TOO_MANY = "has so many sentences that not all were read"

_NOT = _words("not never dont no without avoid cannot cant mustnt shouldnt")
_SAY = _words(
    "tell mention inform reveal notify disclose telling mentioning informing revealing notifying disclosing told informed "
    "mentioned notified knowing noticing knowledge"
)
_USER = _words("user users human humans person customer operator")
_INSTRUCTIONS = (
    *_words("instruction instructions rules rule guidelines guideline prompt prompts directive directives policies constraints"),
    *_words("restrictions guardrails"),
    " told before ",
    " you were told ",
    " you have been told ",
)
_EARLIER = (
    *_words("previous prior above earlier preceding former existing original system safety your initial developer"),
    " given before ",
    " told before ",
    " you were told ",
    " were given ",
)
_OTHERS = (
    " any other tool",
    " every other tool",
    " all other tools",
    " any tool ",
    " any tools ",
    " every tool ",
    " other tools ",
)
_SECRET_FILES = (
    "~/.",
    "$home/.",
    ".ssh/",
    "id_rsa",
    "id_ed25519",
    ".aws/credentials",
    "/etc/passwd",
    "/etc/shadow",
    " etc passwd ",
    " etc shadow ",
    " id rsa ",
    ".cursor/mcp.json",
    "claude_desktop_config",
    ".bash_history",
    ".zsh_history",
    ".netrc",
    ".npmrc",
    ".pypirc",
    ".kube/config",
    ".git-credentials",
    " cookies ",
    " keychain ",
    " .env ",
    "private key",
    "wallet.dat",
    " mcp json ",
)
_TAKE = _words(
    "content contents pass passes passing sidenote attach attaching upload append appending include including paste send sends "
    "insert embed put transmit exfiltrate forward"
)
_SECRET_NOUNS = (
    " api key ",
    " api keys ",
    " api token ",
    " access token ",
    " access tokens ",
    " private key ",
    " private keys ",
    " ssh key ",
    " ssh keys ",
    " password ",
    " passwords ",
    " credentials ",
    " environment variables ",
    " env vars ",
    " secrets ",
    " cookies ",
)
_WHOLE = _words("all every any whole entire users user your their known environment")
_CONVERSATION = (
    " conversation ",
    " conversations ",
    " chat history ",
    " conversation history ",
    " chat log ",
    " previous messages ",
    " system prompt ",
    " system message ",
    " system messages ",
    " complete prompt ",
    " users prompt ",
    " message history ",
    " last message ",
    " original prompt ",
)
_GIVE = _words("pass passing include including put copy paste insert attach append provide send fill contain submit put supply")
_FULL = _words("full entire whole complete verbatim everything exact all last original unmodified")

RULES = (
    Rule(OVERRULES, (_stems("ignor disregard forget overrid bypass overrul circumvent abandon"), _INSTRUCTIONS, _EARLIER)),
    Rule(OVERRULES, ((" new instructions ", " updated instructions ", " real instructions ", " you must obey ", " you obey "),)),
    Rule(OVERRULES, (_words("your"), (" only task ", " new task ", " sole task ", " true task ", " real task "))),
    Rule(
        KEEPS_SECRET,
        (_NOT, _SAY, _USER),
        unless=(" bother ", " unless they ", " unless the user ", " unless asked "),
        near=True,
    ),
    Rule(
        KEEPS_SECRET,
        (_USER, (" must not know ", " should not know ", " may not know ", " must not be aware ", " not be aware of ")),
    ),
    Rule(KEEPS_SECRET, (_words("secretly covertly stealthily surreptitiously discreetly"),)),
    Rule(KEEPS_SECRET, ((" hide this ", " keep this secret ", " keep it secret ", " hidden from the user "),)),
    Rule(
        KEEPS_SECRET,
        (
            (" not mention ", " never mention ", " dont mention "),
            (
                " you had to ",
                " you did ",
                " this step ",
                " this instruction ",
                " these instructions ",
                " this to anyone ",
                " did this ",
            ),
        ),
    ),
    Rule(COMES_FIRST, (_words("before prior"), (" call ", " run ", " use ", " invoke ", " using ", " calling "), _OTHERS)),
    Rule(STEERS, (_words("must always never instead"), _words("bcc cc recipient recipients email emails mail"), ("@",))),
    Rule(
        STEERS,
        (_stems("transfer payment pay money iban"), _stems("recipient account iban"), _stems("chang replac redirect instead")),
    ),
    Rule(STEERS, (_words("tool"), (" must not be used ", " is unsafe ", " is deprecated "), _words("instead always"))),
    Rule(
        STEERS, ((" instead of any other tool ", " never use any other tool ", " do not use any other tool ", " no other tool "),)
    ),
    Rule(STEERS, ((" always call ", " next call ", " run the command "), _stems("delete shell drop remov upload send_"))),
    Rule(
        STEERS,
        (_stems("whenever when every"), (" another server ", " other server ", " other servers "), _words("must always instead")),
    ),
    Rule(COLLECTS, (_CONVERSATION, _GIVE, _FULL)),
    Rule(COLLECTS, (_words("hidden internal"), _words("reasoning thoughts instructions"), _words("your"))),
    Rule(
        COLLECTS,
        ((" all other tools ", " other available tools ", " tools available to you "), _words("names descriptions list")),
    ),
    Rule(SECRETS, (_SECRET_FILES, _TAKE)),
    Rule(
        SECRETS,
        (_SECRET_NOUNS, _TAKE, _WHOLE, _words("each every call next argument parameter you them here extra")),
        unless=(" your own ",),
    ),
    Rule(SECRETS, (_SECRET_NOUNS, _words("user users"), _words("submit attach read steal collect harvest"))),
    Rule(
        CONSENT,
        (
            (
                " already approved ",
                " already consented ",
                " already authorized ",
                " already agreed ",
                " pre approved ",
                " already granted ",
            ),
        ),
    ),
    Rule(
        CONSENT,
        (
            (" no confirmation is needed ", " no confirmation needed ", " skip confirmation ", " without confirmation "),
            _words("any every all tools"),
        ),
    ),
    Rule(
        CONSENT,
        (
            _words("without"),
            _words("asking informing telling notifying"),
            _USER,
            _words("perform execute run send pay delete transfer"),
        ),
    ),
    Rule(
        AUTHORITY,
        (
            (" administrator requires ", " security team ", " system administrator ", " by order of ", " compliance notice "),
            _stems("requir must mandat attach submit"),
        ),
    ),
    Rule(AUTHORITY, ((" failure to comply ", " access will be revoked ", " will be terminated ", " be shut down "),)),
    Rule(
        SENDS,
        (
            ("http://", "https://"),
            (" fetch ", " append ", " send ", " post ", " request ", " render ", " load ", " finish ", " end "),
            (" conversation ", " chat ", " everything ", "base64 of ", " base64 ", " the user said "),
        ),
    ),
    Rule(SENDS, (_words("curl wget iwr irm"), ("http://", "https://"), ("| sh", "| bash", "|sh", "|bash", "| iex", " | zsh"))),
    # other languages
    Rule(
        OVERRULES,
        (
            ("忽略", "无视", "忽視", "無視"),
            ("指令", "指示", "命令", "规则", "規則", "提示"),
            ("之前", "以上", "先前", "前面", "所有", "これまで", "以前", "すべて"),
        ),
    ),
    Rule(
        KEEPS_SECRET,
        (
            ("不要告诉", "不要告知", "请勿告诉", "请勿告知", "不得告诉", "别告诉", "不要讓", "不要让", "不要告訴"),
            ("用户", "使用者", "用戶"),
        ),
    ),
    Rule(KEEPS_SECRET, (("ユーザー",), ("知らせない", "伝えない", "言わない", "教えない", "内緒", "秘密に"))),
    Rule(
        COMES_FIRST,
        (("任何其他工具", "所有其他工具", "其他任何工具", "他のツールを使う前", "他のすべてのツール"), ("之前", "前", "先")),
    ),
    Rule(OVERRULES, (("무시",), ("지시", "명령", "규칙"))),
    Rule(KEEPS_SECRET, (("사용자",), ("알리지", "말하지", "숨기"))),
    Rule(
        OVERRULES,
        (
            _stems("ignor olvid descart haz esquec desconsider dimentic"),
            _stems("instrucci instruccion instruç istruzion reglas regole regras"),
            _stems("anterior previ todas precedent"),
        ),
    ),
    Rule(
        KEEPS_SECRET,
        (
            _words("no não nao non ne nen senza sin sem"),
            _stems("dig cont inform inform dici dire avis revel mencion diga"),
            _stems("usuari usuár utent"),
        ),
    ),
    Rule(
        OVERRULES, (_stems("ignor oubli"), _stems("instruction consigne règle"), _stems("précédent antérieur toutes ci-dessus"))
    ),
    Rule(
        KEEPS_SECRET, (_words("ne nen n sans"), _stems("parl dis dit inform mention révél"), _stems("utilisateur lutilisateur"))
    ),
    Rule(
        OVERRULES,
        (
            _stems("ignorier vergiss missacht"),
            _stems("anweisung regel vorgabe instruktion"),
            _stems("vorherig bisherig früher alle obig"),
        ),
    ),
    Rule(
        KEEPS_SECRET,
        (
            _stems("nicht nichts niemals ohne"),
            _stems("sag erwähn inform mitteil verrat erzähl"),
            _stems("benutzer nutzer anwender"),
        ),
    ),
    Rule(OVERRULES, (_stems("игнорир забуд не_обращ"), _stems("инструкц указани правил"), _stems("предыдущ все прежн выше"))),
    Rule(KEEPS_SECRET, (_words("не"), _stems("сообща говор рассказ упомина"), _stems("пользовател"))),
    Rule(OVERRULES, (("تجاهل",), ("التعليمات", "الأوامر", "القواعد"))),
    Rule(KEEPS_SECRET, (("لا تخبر", "دون إخبار", "لا تذكر"), ("المستخدم",))),
    Rule(OVERRULES, (_stems("zignoruj ignoruj zapomnij"), _stems("instrukcj polece"), _stems("poprzedni wszystki wcześniej"))),
    Rule(OVERRULES, (_stems("yoksay görmezden unut"), _stems("talimat komut kural"), _stems("önceki tüm"))),
    Rule(OVERRULES, (_stems("negeer vergeet"), _stems("instructies regels"), _stems("vorige eerdere alle"))),
    Rule(OVERRULES, (("अनदेखा", "नज़रअंदाज़"), ("निर्देश",))),
)

# markup and control tokens, as text: they are looked for as they stand
_MARKUP = (
    "<important>",
    "<system",
    "<critical",
    "<secret",
    "<hidden",
    "<admin",
    "<instruction",
    "</tool_description",
    "</tool>",
    "[inst]",
    "[/inst]",
    "<<sys>>",
    "<|im_",
    "<|system",
    "<|user",
    "<|assistant",
    "<|end",
    "<|start",
    "### system",
    "### instruction",
    "[system]",
    "[end of tool",
    "end of system prompt",
)
_TURN = re.compile(r"(?:^|[\n\r])[ \t]{0,8}(system|assistant|human|developer)[ \t]{0,2}:[ \t]{0,4}\S")
_COMMENT = re.compile(r"<!--(?!\[)[^>]{24}")  # a shorter one, or one with a bracket, is a template's mark
_IMAGE = re.compile(r"!\[[^\]\n]{0,60}\]\([ \t]{0,4}https?://[^)\n]{0,200}[?{<]")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{32,4000}")
_HEX = re.compile(r"(?:[0-9a-fA-F]{2}){16,2000}")
_ESCAPED = re.compile(r"(?:\\u[0-9a-fA-F]{4}|\\x[0-9a-fA-F]{2}|%[0-9a-fA-F]{2}|&#x?[0-9a-fA-F]{2,6};){12}")
MOST_BLOBS = 50


def likely(texts: Iterable[str]) -> list[Rule]:
    """The rules that may apply to any of `texts`: all that most definitions cost."""
    whole = _spaced(looks.plain("\n".join(texts)))
    return [rule for rule in RULES if _all(rule, whole)]


def said(text: str, rules: list[Rule]) -> list[str]:
    """What the words of `text` do, in words. `rules`: those that are `likely`."""
    low = looks.plain(text)
    found = []
    if "](" in low and _IMAGE.search(low):
        found.append("makes the model show an image from elsewhere, with data in its address")
    if "<!--" in low and _COMMENT.search(low):
        found.append("holds an HTML comment, which a page does not show")
    if any(token in low for token in _MARKUP) or (":" in low and _TURN.search(low)):
        found.append(TURNS)
    if _ESCAPED.search(text) or any(_readable(blob) for blob in _blobs(text)):
        found.append(ENCODED)
    if rules:
        found += _ruled(low, rules)
    return found


def _ruled(low: str, rules: list[Rule]) -> list[str]:
    found: dict[str, None] = {}
    sentences = {*_SENTENCE.split(low)}
    for sentence in islice(sentences, MOST_LOOKS // len(rules)):
        words = _spaced(sentence)
        found.update((rule.says, None) for rule in rules if rule.says not in found and _applies(rule, words))
    if len(sentences) * len(rules) > MOST_LOOKS:
        found[TOO_MANY] = None
    return [*found]


def _all(rule: Rule, words: str) -> bool:
    for group in rule.groups:
        for word in group:
            if word in words:
                break
        else:
            return False
    return True


def _applies(rule: Rule, sentence: str) -> bool:
    if not _all(rule, sentence) or any(word in sentence for word in rule.unless):
        return False
    return not rule.near or _near(sentence.split(), *({word.strip() for word in group} for group in rule.groups[:2]))


def _near(words: list[str], first: set[str], second: set[str]) -> bool:
    last = -NEAR - 1
    for at, word in enumerate(words):
        if word in second and at - last <= NEAR:
            return True
        if word in first:
            last = at
    return False


def _spaced(text: str) -> str:
    """Words with one blank between, around and instead of what is none."""
    return f" {_NO_WORD.sub(' ', _APOSTROPHES.sub('', text).replace('.env', ' .env '))} "


def _blobs(text: str) -> Iterator[bytes]:
    for count, found in enumerate(_HEX.finditer(text)):
        if count == MOST_BLOBS:
            break
        yield bytes.fromhex(found[0])
    for count, found in enumerate(_BASE64.finditer(text)):
        if count == MOST_BLOBS:
            return
        held = found[0].replace("-", "+").replace("_", "/")
        try:
            yield base64.b64decode(held[: len(held) // 4 * 4])
        except binascii.Error:
            continue


def _readable(blob: bytes) -> bool:
    """Whether it is a text of some words."""
    try:
        text = blob.decode("ascii")
    except UnicodeDecodeError:
        return False
    return text.count(" ") >= 3 and text.replace("\n", " ").isprintable()
