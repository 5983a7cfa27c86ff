"""What is said of files elsewhere (``s3://``, ``hf://``, ``https://``), under the area ``remote``.

A row: severity, what was seen, why it matters, what to do. No text shows a key, a token or a signed address.
"""

from __future__ import annotations

_TRAVELS = "It travels with every document and workflow that names it."

REMOTE: dict[str, tuple[str, ...]] = {
    "remote.scheme": (
        "error",
        "{name} is a kind of address that is not read.",
        "",
        "Use s3://, hf:// or https://, or download the file and name it here.",
    ),
    "remote.elsewhere": (
        "error",
        "{name} is not on this machine, and here only files of this machine are read.",
        "",
        "Download it first.",
    ),
    "remote.not_here": (
        "error",
        "{name} is not in the cache yet.",
        "Nothing is loaded for this.",
        "Run a graph with it once.",
    ),
    "remote.plain": ("error", "{name} would come without encryption.", "", "Write https://."),
    "remote.credentials": (
        "error",
        "{name} holds a user name or a password.",
        _TRAVELS,
        "Take it out; credentials come from the environment.",
    ),
    "remote.query": (
        "error",
        "{name} holds a query, what stands behind the question mark.",
        f"It is often a signature or a token. {_TRAVELS}",
        "Name the file without it; for S3 write s3://BUCKET/KEY.",
    ),
    "remote.hash": (
        "error",
        "{name} does not end in a hash.",
        "What stands behind # says what the file must be.",
        "Write #sha256= and its 64 hex digits.",
    ),
    "remote.unhashed": (
        "error",
        "{name} does not say what the file must be.",
        "A web server may send another file tomorrow.",
        "Add #sha256= and its 64 hex digits to the address, or `sha256:` to the row.",
    ),
    "remote.hash_local": (
        "error",
        "{name} is a file of this machine and has a sha256.",
        "It is asked of files elsewhere only.",
        "Leave sha256 out.",
    ),
    "remote.two_hashes": ("error", "{name} has two hashes, and they differ.", "", "Keep one."),
    "remote.form": ("error", "{name} names no file.", "", "Write {form}."),
    "remote.characters": (
        "error",
        "{name} holds a character that no such name has.",
        "It could be read as another address than it looks like.",
        "Rename the file.",
    ),
    "remote.steps": (
        "error",
        "{name} holds an empty part, a . or a .. between its slashes.",
        "It could lead to another file than it looks like.",
        "Write the whole path.",
    ),
    "remote.suffix": (
        "error",
        "{name} is no .safetensors file by its name.",
        "Only safetensors files are read.",
        "Convert it first.",
    ),
    "remote.not_allowed": (
        "error",
        "{place} is not among what the owner of this ComfyUI allows.",
        "A workflow may come from a stranger. Nothing was sent.",
        "To allow it, start ComfyUI with {line} in its environment.",
    ),
    "remote.extra": (
        "error",
        "{name} needs the package {package}, which is not installed.",
        "",
        "Run: pip install {package} (the extra lora-foundry[{extra}]), with the Python of ComfyUI if it is for there.",
    ),
    "remote.no_credentials": (
        "error",
        "{name}: there are no credentials for S3. Nothing was sent.",
        "They come from the environment, or with boto3 installed from a profile.",
        "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; AWS_SKIP_SIGNATURE=true for a public bucket; "
        "{variable}=1 to use the role of this machine.",
    ),
    "remote.setup": (
        "error",
        "{name}: the settings for S3 in the environment do not go together. Nothing was sent.",
        "",
        "Look at the variables that begin with AWS_: keys come in pairs, an endpoint begins with https://.",
    ),
    "remote.profile": (
        "error",
        "{name}: boto3 could not read the credentials of the profile ({kind}).",
        "",
        "Check AWS_PROFILE, and log in again where the profile asks for it.",
    ),
    "remote.plain_endpoint": (
        "error",
        "{variable} names an endpoint without encryption. Nothing was sent.",
        "What is sent there can be read and changed on its way.",
        "Use https://, or set AWS_ALLOW_HTTP=true if it is meant.",
    ),
    "remote.secret": (
        "error",
        "{name}: the server does not accept the signature.",
        "Most likely the secret key is not that of the access key.",
        "Check AWS_SECRET_ACCESS_KEY.",
    ),
    "remote.access_key": (
        "error",
        "{name}: the server does not know the access key.",
        "",
        "Check AWS_ACCESS_KEY_ID, and that AWS_ENDPOINT_URL is the server it is of.",
    ),
    "remote.token": (
        "error",
        "{name}: the session token is expired, or is not that of the access key.",
        "",
        "Log in again, and set AWS_SESSION_TOKEN with the new keys, or unset it.",
    ),
    "remote.clock": (
        "error",
        "{name}: the clock of this machine is not that of the server.",
        "Signatures hold for minutes.",
        "Set the clock.",
    ),
    "remote.region": (
        "error",
        "{name}: the bucket is in another region.",
        "",
        "Set AWS_REGION to {region}.",
    ),
    "remote.denied": (
        "error",
        "{name}: the server does not let these credentials read it.",
        "Some servers say the same of a file that is not there.",
        "Check the name, and who may read it.",
    ),
    "remote.denied_write": (
        "error",
        "{name}: the server does not let these credentials write it. Nothing was sent.",
        "",
        "Check the name, and who may write there: an upload in parts is begun, sent, completed and aborted.",
    ),
    "remote.denied_list": (
        "error",
        "{name}: the server does not let these credentials list it.",
        "What a batch made before is found by that.",
        "Ask who runs it to allow it (s3:ListBucket), or name a folder of this machine.",
    ),
    "remote.no_upload": (
        "error",
        "{name} cannot be written to.",
        "",
        "Name a place of this machine, s3://BUCKET/FILE.safetensors, or a folder: s3://BUCKET/FOLDER/.",
    ),
    "remote.upload_size": (
        "error",
        "{name}: {there} bytes are there and {size} were sent.",
        "Somebody else wrote it at the same time, or the server lost something.",
        "Run again.",
    ),
    "remote.repo": (
        "error",
        "{name}: the repository is private, gated or not there.",
        "",
        "Check its name, accept its terms in the browser, and set HF_TOKEN or run: hf auth login.",
    ),
    "remote.no_bucket": ("error", "{name}: there is no bucket {bucket} on this server.", "", "Check the name."),
    "remote.no_file": ("error", "{name} is not there.", "", "Check the name, with its folders and its case."),
    "remote.empty": ("error", "{name} is empty (0 bytes).", "", "Upload it again."),
    "remote.no_ranges": (
        "error",
        "{name}: the server sends no parts of files.",
        "A download that breaks off could not be gone on with.",
        "Use another server, or download the file and name it here.",
    ),
    "remote.strange": (
        "error",
        "{name}: the server answered with something else than was asked for.",
        "A login page or an error page of a proxy may have come in its place, or it sends no parts of files.",
        "Look at what AWS_ENDPOINT_URL names, and what stands between.",
    ),
    "remote.archived": (
        "error",
        "{name} lies in an archive, from which nothing can be read at once.",
        "",
        "Restore it first (S3 Glacier), or copy it into another storage class.",
    ),
    "remote.changed": (
        "error",
        "{name} changed while it was read, or the server sent other bytes than were asked for.",
        "Half of it would come from one file and half from another. Nothing of it is kept.",
        "Run again, when nobody writes to it.",
    ),
    "remote.unreachable": (
        "error",
        "{name}: the server cannot be asked: {reason}.",
        "",
        "Check the network, the address and the server's state; run again to go on from where it was.",
    ),
    "remote.answer": ("error", "{name}: the server answered {answer}.", "", "Ask who runs it."),
    "remote.redirect": (
        "error",
        "{name}: the server leads to {host} without encryption.",
        "",
        "Name an address that stays with https.",
    ),
    "remote.another": (
        "error",
        "{name} is another file than it has to be: its sha256 is {sha256}, not {wanted}.",
        "It was replaced, or changed on its way. Nothing of it is kept.",
        "Check where it comes from; if the new file is meant, correct the hash.",
    ),
    "remote.damaged": (
        "error",
        "{name}: what came is not what the server says it has, by its MD5.",
        "It was changed on its way. Nothing of it is kept.",
        "Run again. If the bucket encrypts with KMS, its ETag is no MD5: add #sha256= to the address.",
    ),
    "remote.no_model": (
        "error",
        "{name}: what came is no safetensors file: it {seen}.",
        "A login page or an error page may have been sent in its place. Nothing of it is kept.",
        "Look at what the address shows in a browser.",
    ),
    "remote.stopped": ("error", "{name}: reading it was stopped.", "", "Run again."),
    "remote.cache_small": (
        "error",
        "{name} has {size}, and the cache holds {limit}.",
        "",
        "Set {variable} to more, or download the file and name it here.",
    ),
    "remote.disk": (
        "error",
        "{name} needs {size}, and {free} are free where the cache {folder} is.",
        "Nothing was loaded.",
        "Make room, or set {variable} to a folder on another disk.",
    ),
    "remote.offline": (
        "note",
        "{name}: the server cannot be asked ({reason}); the copy in the cache is used.",
        "It is what the server had when it was loaded.",
    ),
}
