"""Recognises phrases of mail servers in bounces, in many languages, and groups them by meaning.

The table is for bounces only. Within a dialogue the answer has a code, and `codes` judges it. Words are weaker
than codes: two kinds at once are a contradiction, and a contradiction suppresses nobody.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum


class Kind(StrEnum):
    """What a phrase is about."""

    DEAD = "dead"  #: there is nobody at that address
    CLOSED = "closed"  #: the mailbox is disabled, suspended, or no longer used
    FULL = "full"  #: over quota
    EXPIRED = "expired"  #: tried for a long time, then given up
    UNROUTABLE = "unroutable"  #: no such domain or host, no connection, a loop
    RATE = "rate"  #: the recipient or their server gets too much at a time
    SENDER = "sender"  #: the sender of the mail was refused
    POLICY = "policy"  #: spam, reputation, authentication, content, size


def _any(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


#: The gap between a noun and what is said about it.
_GAP = r"[^.;!?\n]{0,60}?"

_DEAD = _any(
    # English
    rf"\b(user|mailbox|recipient|address(ee)?|account|alias|local part)\b{_GAP}\b(is |was )?"
    r"(unknown|not known|not found|invalid|nonexist\w*|not exist\w*|does ?n.?[o']?t exist|did not exist|"
    r"could ?n.?[o']?t be found|was ?n.?[o']?t found|not (a )?(valid|recogni[sz]ed)|not listed in)",
    r"\b(no such|unknown|invalid|non-?existent|bad|unrecogni[sz]ed|illegal) "
    r"(\w+ ){0,2}?(user|mailbox|recipient|addressee|account|local part|alias|person|mail ?drop|userid)\b",
    r"\bno (mail)?box here\b|\bno (such )?user (here|by that name|exists)|\bno mailbox (here )?by that name",
    r"\bno (such )?(one|person) (at|with) (this|that)( e-?mail)? address|\bno (valid )?recipients?\b(?! specified)",
    r"\bdoes ?n.?[o']?t have an? \S{0,40}\s?account\b|\bnot our customer\b|\baddress not found\b",
    r"\brecipientnotfound\b|\b(ex)?recipnotfound\b|\bon the suppression list\b|\b(user|recipient|mailbox) no longer on\b|\brecipient ?not ?found\b|\bunknown recipient\b",
    r"\b(email|e-mail|mail) (account|address)[^.\n]{0,60}(does not|doesn.t) exist|\bno longer (valid|exists)\b",
    r"\bwas(n.t| not) found at\b|\bwas unable to find the recipient\b|\baddress (is )?unknown\b",
    # Chinese
    "(用户|用戶|收件人|邮箱|郵箱|信箱|帐号|账号|帳號|地址|账户|帳戶)[^。\n]{0,12}(不存在|无效|無效|未找到|找不到|未开通|不可用)",
    "(该|此)?(用户|用戶)(未开通|没有开通)|(查无|无|無|没有|沒有)(此|该|這個)(用户|用戶|人|帐号|账号|帳號|邮箱|地址)|不存在的(用户|收件人|邮箱)",
    # Japanese
    "(宛先|あて先|ユーザー?|メールアドレス|受信者|アカウント)[^。\n]{0,30}(存在しません|見つかりません|不明|存在しない)",
    # Russian, Ukrainian
    r"(пользовател|почтов\w+ ящик|ящик|адрес|получател|аккаунт)\w*[^.\n]{0,60}(не (существует|найден|зарегистрирован)|"
    r"неизвест|несуществующ|отсутству)|(нет|не существует) такого (пользовател|адрес|ящик|почтов)|"
    r"(неизвестн|несуществующ)\w+ (пользовател|получател|адрес)|(не існує|не знайдено)",
    # German
    rf"\b(empfänger|empfaenger|benutzer|nutzer|postfach|mailbox|adresse|konto|e-mail-adresse)\w*{_GAP}"
    r"(unbekannt|existiert nicht|nicht gefunden|nicht vorhanden|nicht bekannt|ungültig|gibt es nicht)|"
    r"\bunbekannter? (empfänger|benutzer|nutzer|adresse)|\bkein(e)? (solche[rs]? )?(postfach|mailbox|benutzer)\b",
    # French, Spanish, Italian, Portuguese, Polish, Dutch, Turkish
    rf"\b(utilisateur|destinataire|adresse|bo[iî]te|compte){_GAP}(inconnue?\b|n.existe pas|inexistante?|introuvable|n.a pas été trouvée?)",
    rf"\b(usuario|destinatario|dirección|direccion|cuenta|buzón|buzon){_GAP}(desconocid[oa]|no existe|inexistente|no encontrad[oa]|no se encontró)",
    rf"\b(utente|destinatario|casella|indirizzo|account){_GAP}(sconosciut[oa]|inesistente|non esiste|non trovat[oa])",
    rf"\b(usuário|usuario|destinatário|endereço|caixa|conta){_GAP}(desconhecid[oa]|não existe|inexistente|não (foi )?encontrad[oa])",
    rf"\b(użytkownik|adres|skrzynka|odbiorca|konto){_GAP}(nie istnieje|nieznany|nie znaleziono)|\bnie ma takiego (konta|użytkownika|adresu)",
    rf"\b(gebruiker|ontvanger|adres|mailbox|postvak){_GAP}(onbekend|bestaat niet|niet gevonden)",
    rf"\b(kullanıcı|alıcı|hesap|adres){_GAP}(bulunamadı|mevcut değil|yok\b)",
)

_CLOSED = _any(
    rf"\b(user|mailbox|recipient|account|address|inbox){_GAP}\b(disabled|deactivated|suspended|inactive|locked|"
    r"closed|expired|terminated|discontinued|blocked|frozen|unavailable|no longer (active|in use|available|used|"
    r"accept\w*|monitored))",
    r"\b(disabled|inactive|suspended|closed|locked) (user|mailbox|recipient|account)\b|\baccount has been disabled\b",
    "(用户|帐号|账号|帳號|邮箱)[^。\n]{0,12}(禁用|停用|冻结|锁定|被锁|已注销|暂停)",
    r"(ящик|аккаунт|учетн\w+ запис\w+|пользовател)\w*[^.\n]{0,40}(отключ|заблокир|удал[её]н|неактив|приостановл)",
    rf"\b(postfach|konto|benutzer|empfänger){_GAP}(gesperrt|deaktiviert|geschlossen|nicht mehr (aktiv|erreichbar))",
    rf"\b(compte|bo[iî]te|cuenta|buzón|casella|conta){_GAP}(désactivée?|suspendue?|deshabilitad[oa]|suspendid[oa]|disabilitat[oa]|desativad[oa])",
)

_FULL = _any(
    rf"\b(mailbox|inbox|mail ?drop|account|user|recipient|message ?store|storage|disk|quota){_GAP}\b(is |was )?"
    r"(full\b|exceeded|overflow\w*|out of (disk )?space)",
    r"\b(over|exceed\w*|above)( \w+){0,4} (disk |storage |mailbox )?(quota|allocation|storage)\b|\bquota (exceed|full|limit)",
    r"\b(out of|insufficient|not enough|no) (system |mailbox |disk |storage )+(space|storage)\b|\bmailfolder is full\b",
    r"\b(storage|size|speicher\w*|quota)[ -]?limit\w*\b[^.\n]{0,30}(reach|exceed|erreicht|überschritten)|speicherlimit|용량 초과",
    r"\bfull (mailbox|inbox)\b|\bnot enough (storage|disk) space\b|\boverquota\b|\bmailbox size limit\b",
    "(收件人|用户|邮箱|郵箱|信箱|邮箱空间|郵箱空間|空间|容量)[^。\n]{0,12}(空间不足|容量不足|已满|已滿|不足|超限|超出)|超出(邮箱)?(容量|配额|空间)|配额",
    "(メールボックス|[受収]信箱|ボックス|容量)[^。\n]{0,20}(いっぱい|一杯|超え|超過|不足)",
    r"(ящик|почт|квот|мест)\w*[^.\n]{0,40}(переполн|заполн|превыш|недостаточно)|(переполнен|превышен\w*|недостаточно)[^.\n]{0,30}(ящик|квот|мест)",
    rf"\b(postfach|mailbox|speicher\w*|quota|konto){_GAP}(voll\b|überfüllt|ueberfuellt|erschöpft|ausgeschöpft|überschritten)",
    rf"\b(bo[iî]te|quota|espace){_GAP}(pleine|saturée|dépassé|atteint|insuffisant|épuisé)",
    rf"\b(buzón|buzon|cuota|casella|caixa|cota|spazio|quota){_GAP}(llen[oa]|excedid[oa]|superad[oa]|pien[oa]|cheia|lotada|esaurit[oa]|superat[oa])",
    rf"\b(skrzynka|postvak|mailbox|posta kutusu){_GAP}(pełna|przepełniona|\bvol\b|dolu)",
)

_EXPIRED = _any(
    r"\bretry time(out)?\b[^.\n]{0,30}(exceeded|reached|out)|\bdelivery time (has )?expired|\bmessage (has )?expired\b",
    r"\b(message|mail|it) (has been |was |is )?(too old|timed out)\b|\b(in|on) the queue (for )?too long|\bmaximum (queue|retry) (life)?time\b",
    r"\btoo many (failed )?(delivery )?(attempts|retries|tries)\b|\bdelivery (attempts )?(timed out|expired|time-?out)",
    r"\bretry (limit|count|period) (was |has been )?(exceeded|expired|reached)|\bexpired after \d+|\bunable to deliver (the |this )?(message )?"
    r"(for|after|within) \d+ (hour|day|minute)|\bcould not be delivered (for|within) \d+ (hour|day)|\bqueue (life)?time(out)? (exceeded|expired)",
    r"\bnot going to try again\b|\bhas been in the queue\b|\bgiving up after\b|\bttl expired\b|\bunable to deliver in time\b",
    "(投递|发送|傳送|连接|連接)[^。\n]{0,10}(超时|逾時|超時)|多次(尝试|嘗試|投递)|超过(最大)?重试",
    r"(истекл|превышен)\w*[^.\n]{0,30}(врем|срок)|(врем|срок)\w*[^.\n]{0,30}(истек|истёк|превышен)",
    r"\bzustell\w*[^.\n]{0,60}(aufgegeben|eingestellt|abgelaufen)|\b(zeit\w*|frist)[^.\n]{0,20}(überschritten|abgelaufen)",
    r"\bdélai[^.\n]{0,40}(dépassé|expiré)|\btiempo[^.\n]{0,30}(agotado|excedido|expirado)|\btempo[^.\n]{0,30}(scaduto|esgotado|expirado)",
)

_UNROUTABLE = _any(
    r"\b(host|domain|server|mx|name)( name)?( or domain name)?( \S{1,80})? (is )?(not found|unknown|lookup fail\w*|does ?n.?[o']?t exist|"
    r"could ?n.?[o']?t be (found|resolved|reached))|\bname service error\b|\bunrout(e)?able\b|\bno route to host\b|\bnxdomain\b",
    r"\bconnect(ion)?( to \S{1,200})?( was|:)? ?(timed out|refused|reset|closed|lost|dropped|time ?out)|\blost connection\b|\boperation timed out\b|\bnetwork (is )?unreachable\b",
    r"\b(mail|routing) (is )?loop\w*|\bloop(s)? (back|detected)|\btoo many (hops|received)|\bhop count\b|\bno (valid )?mx\b|\bdns (error|query|lookup)",
    r"\b(could ?n.?[o']?t|unable to|cannot|can.t) (find|connect|contact|resolve|establish|reach)\b[^.\n]{0,60}\b(host|domain|server|mx|connection)",
    r"\bdoes not (accept|like) (any )?mail\b|\bhost or domain\b",
    "(域名|主机|主機)[^。\n]{0,10}(不存在|无法解析|错误|未找到)|无法连接|連線失敗",
    r"(домен|сервер|хост)\w*[^.\n]{0,40}(не найден|не существует|недоступен)|\b(domain|server|rechner)[^.\n]{0,40}(nicht gefunden|nicht erreichbar)",
)

_RATE = _any(
    r"receiving mail (at a rate|too (quickly|fast))|\breceivingrate\w*|\b(user|recipient|mailbox|account)[^.\n]{0,60}(too (many|much)|rate)[^.\n]{0,20}(messages|mails?|limit|quickly)",
    r"\brate.?limit\w*|\btoo many (messages|mails|connections|sessions|recipients|requests)|\bthrottl\w*|\btry (again )?later\b[^.\n]{0,30}\brate\b",
    r"\b(daily|hourly|sending|message) (sending |message )?(limit|quota)( \w+){0,2} (exceed|reach)\w*|\bgr[ae]y-?\s?list",
    "(发信|发送|接收|收信)[^。\n]{0,8}(频率|过快|过于频繁|数量超)|频率(限制|过高)|слишком (много|часто)|zu viele (nachrichten|mails|verbindungen)",
)

_SENDER = _any(
    r"\bsender( e-?mail)?( address| domain| verif\w+| policy)?\b[^.\n]{0,40}(reject|refus|verif\w* fail|denied|block|invalid|not (found|exist|verif|permit|allow|accept|author)|unknown|bad|fail)",
    r"\bverif(y|ication) failed for\b|\bcallout verification\b|\b(bad|invalid|unknown|unverified|unauthenticated) (envelope )?sender\b|\bsender (verify|rewrit\w+)",
    r"\bmail from\b[^.\n]{0,40}(reject|refus|denied|not allowed|must (exist|resolve))|\breturn(-| )path\b[^.\n]{0,40}(reject|invalid|verif|not)|\bnot allowed to send (as|from)\b",
    r"\breverse-?path\b[^.\n]{0,30}(reject|invalid|not)|\bsend(er)? as\b[^.\n]{0,20}denied|\babsender\w*[^.\n]{0,40}(abgelehnt|unbekannt|nicht)|\bexpéditeur[^.\n]{0,40}(refusé|inconnu|rejet)",
    "(发件人|寄件人|發件人)[^。\n]{0,12}(被拒|拒绝|不存在|无效|验证失败|未验证)|отправител\\w*[^.\\n]{0,40}(отклон|не (найден|существует|провер)|запрещ)",
    r"\brelay(ing)? (access )?(is |was )?(denied|not (permitted|allowed))|\bunable to relay\b|\bnot permitted to relay\b",
)

_POLICY = _any(
    r"\bptr\b|\b(ip|address|host)\b[^.\n]{0,40}\blisted\b|\bspam\w*|indésirable|\bcontenu\b|\bcontenuto\b|\bcontenido\b",
    r"\bspam\b|\bjunk\b|\bphish\w*|\bvirus\b|\bmalware\b|\bblack ?list\w*|\bblock ?list\w*|\bdnsbl\b|\brbl\b|\bspamhaus\b|\bbarracuda\b|\breputation\b",
    r"\bpolic(y|ies)\b|\bdmarc\b|\bspf\b|\bdkim\b|\bunauthenticated\b|\bunsolicited\b|\bbanned\b|\bprohibited\b|\bnot authori[sz]ed\b|\baccess denied\b",
    r"\b(content|attachment|url|ip|host|client|server|domain)\b[^.\n]{0,40}\b(block|ban|refus|reject|denied)\w*|\b(message|mail)\b[^.\n]{0,40}\b(block|ban)\w*",
    r"\bmessage (size|is too|too|length)[^.\n]{0,40}(exceed|large|big|limit|long)|\btoo (large|big)\b|\bsize limit\b|\bauthenti\w+ (fail\w*|required|checks)",
    r"\brestricted\b|\bonly accepts? (mail|messages)|\bpermission\w*\b[^.\n]{0,30}\b(to send|denied|required)|\bnot (allowed|permitted|accepting)\b|\bmoderat\w+\b",
    "垃圾邮件|垃圾郵件|黑名单|黑名單|拒收|反垃圾|内容被拒|内容(违规|含)|спам|чёрн\\w+ спис|черн\\w+ спис|політик|политик|\\brichtlinie\\w*|\\bpolitique\\b|\\bpolítica\\b",
)

#: In order of precedence, for cases in which only one kind may count.
TABLE: Mapping[Kind, re.Pattern[str]] = {
    Kind.SENDER: _SENDER,
    Kind.RATE: _RATE,
    Kind.FULL: _FULL,
    Kind.EXPIRED: _EXPIRED,
    Kind.UNROUTABLE: _UNROUTABLE,
    Kind.POLICY: _POLICY,
    Kind.CLOSED: _CLOSED,
    Kind.DEAD: _DEAD,
}

_TEMPORARY = re.compile(
    r"\btemporar|\bin progress\b|\bdeferred\b|\bat this time\b|\bat the moment\b|\blater\b|\bldap\b|\bdirectory lookup\b|"
    r"\bcurrently\b|\bfor now\b|\btry again later\b|временно|暂时|vorübergehend",
    re.IGNORECASE,
)
#: The sender of the mail, named in any way; not "returned to the sender".
_ABOUT_SENDER = _any(
    r"(?<!to )(?<!to the )\bsender\b|\boriginator\b|\b(mail|envelope|header)[- ]?from\b|\bfrom[- ](address|user|domain|header)|\bfrom[=:]",
    r"\breturn[- ](address|path)|\breverse[- ]?path|\bcall(back|out)\b|absender|expéditeur|expediteur|[eé]metteur|remitente|\bemisor|mittente",
    r"remetente|afzender|nadawc|gönderen|gönderici|odes[ií]latel|odosielate|feladó|avsändare|afsender|avsender|lähettäjä|expeditor|pošiljat|αποστολέα",
    "送信者|送信元|差出人|発信者|[发發寄][信件](人|者|地址)|[发發]送(人|者|方)|보낸 ?사람|보내는 ?사람|발신자|송신자|отправител|відправник|подател|المرسل|השולח|người gửi|pengirim",
)
#: Ignored, because links, addresses and host names may contain "spam", "policy" or "unknown".
_NAME = re.compile(r"\bhttps?://\S+|(?<!\S)\S+@\S+|(?<![\w-])[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63})+\b")
#: Maximum characters that are read, so that the author cannot cost us time.
_MAX_READ = 2000


def kinds_in(text: str) -> frozenset[Kind]:
    """The kinds of phrases in the text; empty if it has no known phrase."""
    words = " ".join(_NAME.sub(" ", text[:_MAX_READ]).split())
    return frozenset(kind for kind, pattern in TABLE.items() if pattern.search(words))


def is_about_sender(text: str) -> bool:
    """Whether the text mentions the sender of the mail at all."""
    return _ABOUT_SENDER.search(_NAME.sub(" ", text[:_MAX_READ])) is not None


def is_temporary(text: str) -> bool:
    """Whether the text says that this may change later."""
    return _TEMPORARY.search(text[:_MAX_READ]) is not None
