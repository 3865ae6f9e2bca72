from __future__ import annotations

import copy
import fnmatch
import functools
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from ansible_collections.slipway.stack.plugins.module_utils import moments
from ansible_collections.slipway.stack.plugins.plugin_utils import app_services, forms
from ansible_collections.slipway.stack.plugins.plugin_utils.host_view import RoleFiles, internal_variables
from conftest import ROOT
from slipway_host import decide

ROLES = sorted(path.parents[1].name for path in ROOT.glob("roles/*/meta/argument_specs.yml"))
FORMS = yaml.safe_load((ROOT / "meta/forms.yml").read_text())
PLAYBOOKS = FORMS["playbooks"]
SHARED = FORMS["shared"]
# The version that an image's name may hold, where a product is released by versions.
EMPTY_BY_DEFAULT = {"app_version", "image_no_proxy", "nginx_server_extra"}


@functools.cache
def specs(role: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / f"roles/{role}/meta/argument_specs.yml").read_text())["argument_specs"]["main"][
        "options"
    ]
    return found


@functools.cache
def declared(role: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / f"roles/{role}/meta/forms.yml").read_text())
    return found


def message(form: Any, value: Any) -> str:
    """What is wrong with a value, or an empty text."""
    return "; ".join(f"{wrong.path}: {wrong.sentence}" for wrong in forms.problems(forms.parsed(form), value))


@pytest.mark.parametrize("role", ROLES)
def test_every_input_of_a_role_has_a_form(role: str):
    by_specification = {name for name, spec in specs(role).items() if spec["type"] == "bool" or "choices" in spec}
    assert set(declared(role)) == set(specs(role)) - by_specification, f"declare the form of each input in roles/{role}/meta/forms.yml"


@pytest.mark.parametrize("role", ROLES)
def test_the_members_of_an_input_have_forms(role: str):
    for name, spec in specs(role).items():
        form = forms.parsed(declared(role).get(name, "boolean"))
        form = form.members if form.kind == "list" and form.members else form
        if "options" in spec:
            assert set(form.fields) == set(spec["options"]), name
            needed = {key for key, member in spec["options"].items() if member.get("required")}
            needed |= {key for keys in spec.get("required_together", ()) for key in keys}
            assert set(form.required) == needed, name
        elif spec["type"] == "dict":
            assert form.kind in ("map", "fields", "data", "anything"), name


def type_of(form: forms.Form) -> str:
    """The type of the specification that values of a form have."""
    kind = forms.KINDS.get(form.kind)
    if kind and kind.number:
        return "int" if kind.whole else "float"
    return {"list": "list", "map": "dict", "fields": "dict", "boolean": "bool", "healthcheck": "list"}.get(form.kind, "str")


def described_otherwise(form: forms.Form, spec: dict[str, Any], path: str) -> Iterator[str]:
    """Yield where the specification of a value, and of its members, says something else than its form."""
    # A string that may stand for a list has no type of its own.
    expected = "raw" if form.single else type_of(form)
    if spec["type"] != expected:
        yield f"{path}: type {spec['type']} for {expected}"
    members = form.members if form.kind == "list" and form.members else form
    if form.kind == "list" and not form.single and spec.get("elements") != type_of(members):
        yield f"{path}: elements {spec.get('elements')} for {type_of(members)}"
    if set(spec.get("choices", ())) != set(form.words if form.kind == "choice" else ()):
        yield f"{path}: choices"
    options = spec.get("options", {})
    if set(options) != set(members.fields):
        yield f"{path}: options {sorted(set(options) ^ set(members.fields))}"
    if {name for name, option in options.items() if option.get("required")} != set(members.required):
        yield f"{path}: required"
    for name in sorted(set(options) & set(members.fields)):
        yield from described_otherwise(members.fields[name], options[name], f"{path}.{name}")


def service_described_otherwise(keys: dict[str, Any]) -> list[str]:
    """What the specification of a service says otherwise than its form; image is required of the whole, not of each variable."""
    return list(described_otherwise(app_services.form_of_service(), {"type": "dict", "options": keys}, "service"))


def test_the_keys_of_a_service_and_their_members_are_described_as_their_forms():
    assert service_described_otherwise(app_services.known_keys()) == ["service: required"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda keys: keys["routes"]["options"].pop("cache"), "service.routes: options ['cache']"),
        (lambda keys: keys["migrate"].pop("options"), "service.migrate: options ['command', 'environment', 'seconds', 'secrets']"),
        (lambda keys: keys["build"]["options"].update(folder={"type": "str"}), "service.build: options ['folder']"),
        (lambda keys: keys["volumes"]["options"]["mode"]["choices"].append("z"), "service.volumes.mode: choices"),
        (lambda keys: keys["volumes"]["options"]["path"].pop("required"), "service.volumes: required"),
        (lambda keys: keys["backup"]["options"]["paths"].pop("elements"), "service.backup.paths: elements None for str"),
        (lambda keys: keys["routes"]["options"]["websocket"].update(type="str"), "service.routes.websocket: type str for bool"),
    ],
)
def test_a_member_of_a_service_that_is_described_otherwise_is_found(change: Callable[[dict[str, Any]], object], said: str):
    keys = copy.deepcopy(app_services.known_keys())
    change(keys)
    assert said in service_described_otherwise(keys)


def test_members_of_a_service_have_the_defaults_that_are_described():
    described = {key: spec.get("options", {}) for key, spec in app_services.known_keys().items()}
    told = {key: {name: spec["default"] for name, spec in options.items() if "default" in spec} for key, options in described.items()}
    # What ansible-doc shows as an empty list is an empty tuple where nothing may change it.
    assert told["routes"] | {"extra_lines": ()} == {
        name: value for name, value in app_services.ROUTE_KEYS.items() if name in told["routes"]
    }
    assert told["migrate"] == {"seconds": app_services.MIGRATION_SECONDS}
    volume: dict[str, Any] = {"name": "data", "path": "/data"}
    web = app_services.services({"app_services": {"a": {"image": "a:1", "build": {"context": "x"}, "volumes": [volume]}}})["a"]
    assert web.written_volumes == [volume]
    assert told["volumes"] == {"mode": "rw", "backup": app_services.is_kept(volume)}
    (build,) = app_services.builds({"app_services": {"a": {"image": "a:1", "build": {"context": "x"}}}}).values()
    assert told["build"] == {"dockerfile": build["dockerfile"]}


@pytest.mark.parametrize("role", ROLES)
def test_the_defaults_of_a_role_have_their_form(role: str):
    defaults = yaml.safe_load((ROOT / f"roles/{role}/defaults/main.yml").read_text()) or {}
    wrong = {
        name: message(declared(role)[name], value)
        for name, value in defaults.items()
        if name in declared(role) and "{{" not in str(value) and not (value == "" and name in EMPTY_BY_DEFAULT)
    }
    assert {name: text for name, text in wrong.items() if text} == {}


def test_every_shared_variable_and_argument_of_a_playbook_has_a_form():
    ours = RoleFiles().shared()
    inputs = {name for role in ROLES for name in specs(role)}
    assert set(ours) - inputs <= set(SHARED)
    for declaration in [
        *(form for form in SHARED.values() if "like" not in form),
        *(form for names in PLAYBOOKS.values() for form in names.values()),
    ]:
        forms.parsed(declaration)
    for told in ("inputs_of_playbooks", "internal"):
        assert [name for names in FORMS[told].values() for name in names if not fnmatch.filter(inputs | set(SHARED), name)] == []
    # rollback.yml is deploy.yml with another direction.
    assert set(PLAYBOOKS) == {path.stem for path in ROOT.glob("playbooks/*.yml")} - {"rollback"}


def test_what_roles_pass_to_the_role_of_containers_is_declared_once():
    """An input that neither an inventory nor a role can set is none."""
    tasks = "".join(path.read_text() for part in ("roles/*/tasks", "playbooks") for path in sorted(ROOT.glob(f"{part}/**/*.yml")))
    said = [name for name, why in internal_variables().items() if why.startswith("a role says it")]
    assert said
    assert [name for name in said if not re.search(rf"^ *{name}:", tasks, re.MULTILINE)] == []


#: For forms: values that are right, and values that are wrong.
EXAMPLES: list[tuple[Any, list[Any], list[Any]]] = [
    ("accepted", ["restart", "empty", "restart,empty", "empty,restart"], ["", "everything", "restart,", "restart empty", True]),
    ("port", [1, 443, 65535, "443"], [0, -1, 65536, "1e3", "0443", 44.3, True, None, "", "80a", " 80", [80], "\uff18\uff10"]),
    ("count 1..100", [1, 100, "7"], [0, 101, 1000, "x", 1.5]),
    ("count 10..262143", [10], [-5, 0]),
    ("memory 256..1048576", [256], [-1, 255, 2000000]),
    ("cores", [0.5, 2, "1.5"], [0, -1, "many", float("nan"), float("inf")]),
    ("share", [0.25, 1], [0, 1.5, "half"]),
    ("volume", ["postgres_data", "a.b-c"], ["", None, "x", "/srv/pgdata", "/etc", "a b", "ü1", "data:ro"]),
    ("stack", ["shop", "shop-2_b"], ["", "..", "Shop", "-x", "a" * 42, 1.5, "a/b", "a\n"]),
    (
        "image",
        [
            "redis:7-alpine",
            "chromadb/chroma:1.5.9",
            "r.example.com:5000/a/b_c:1",
            "a@sha256:" + "0" * 64,
            "a:latest@sha256:" + "f" * 64,
            "a:latest-1",
        ],
        [
            "",
            None,
            "redis",
            "postgres:17@sha256:abc",
            "ü🚀",
            "a/b:",
            "a/b:../1.0.0",
            "a/B:1",
            "a b:1",
            "support-desk/backend:a/b",
            "-x:1",
            "a:latest",
            "h:5000/a:Stable",
        ],
    ),
    ({"list": "words", "at_least": 1}, [["a"]], [[], None, [""]]),
    (
        "version",
        ["1.0.0", "1.1.0-rc.1", "v2", 2],
        ["", None, "latest", "MAIN", "a/b", "../1.0.0", 1.1, True, "1.0 ", "-1", "1:2", "1.0\n", "ü"],
    ),
    ("address or empty", ["", "10.0.0.1", "::1"], ["localhost", "999.0.0.1", "10.0.0", "10.0.0.1/8", None]),
    ("ipv4_host", ["10.0.0.1", "db1.example.com", "lab1"], ["::1", "my host", "not an address", None, "999.1.1.1", ""]),
    (
        "network",
        ["10.0.0.1", "10.0.0.0/8", "fd00::/8"],
        ["x", "300.1.1.1", "999.0.0.1", "10.0.0.1/33", "10.0.0.1/32 trust\nhost all all 0.0.0.0/0", ""],
    ),
    ("endpoint", ["a:443", "10.0.0.1:1"], ["a", "a:0", "a b:1", ":1"]),
    (
        "server_name",
        [
            "localhost",
            "www.example.com",
            "*.example.com",
            ".example.test",
            "~^www[0-9]+\\.example$",
            "10.0.0.1",
            "~^(?<user>.+)\\.example\\.com$",
            "~^\\d{1,3}\\.example\\.com$",
            "~^(?P<a>\\w+)\\-b\\.example$",
            "~^(?:a|b)\\.(?!x)\\S+$",
            "~^a++\\.example",
            "~^[[:alpha:]]+\\.example$",
            "~^\\p{L}+$",
            "~^(?|a|b)$",
            "::1",
            "*.example.co.uk",
            "www.example.*",
            "_",
        ],
        [
            "",
            "https://localhost",
            "~^((",
            "~",
            "~a b",
            "~[a",
            "~*a",
            "~a;b",
            "~a\x01b",
            "www.example.com.",
            "*.example.com.",
            "a..b",
            ".",
            "..",
            "*.",
            "[::1]",
            "*." + ".".join(["a" * 60] * 4) + ".abcdefghi",
            "localhost; return 200 pwned",
            "a b",
            "a:80",
            "a/b",
            "müller.example",
            "999.1.1.1",
            None,
        ],
    ),
    (
        "public_url",
        ["https://www.example.com/a@b?c=d", "http://a:8000/x"],
        ["https://probe@a", "https://probe:pw@a/x", "https://", "ftp://a"],
    ),
    (
        "url",
        ["https://www.example.com", "http://a:8000/x"],
        ["www.example.com", "https://", "https://a b", "https://a:99999", "ftp://a", "https://a;b"],
    ),
    (
        "route",
        ["/api/", "/", "/a-b_c.d/100%", "/café/", "/.well-known/"],
        ["api/", "", None, "/a b", "/api/ {", "/x;", "/$uri", '/"', "/a\n"],
    ),
    ("route", [], ["/a?b=1", "/caf%C3%A9/", "//x", "/a//b", "/b/../c", "/b/./c", "/b/..", "/api/*", "/(api|v1)/"]),
    (
        "nginx_directive",
        ["gzip off;", "proxy_set_header X-A 'b;c';  # why", "if ($a) { return 403; }"],
        ["gzip off", "gzip off; expires 1h;", "gzip\noff;", "# gzip off;", "}", "if ($a) {", "", None, 'add_header a "b;'],
    ),
    ("path", ["/data", "/var/lib/x y", "/dev/shm", "/process"], ["", "/", "data", "/a:b", "/a/../b", "/a\n", "/a,b"]),
    ("path", [], ["/proc", "/proc/x", "/sys", "//sys/fs", "/dev", "/dev/null", "/dev/shmem"]),
    ("any_user", ["1000:1000", "app", "2147483647", "0"], ["2147483648", "9999999999", "1\u0663", "1:4294967296", "a b"]),
    ("user", ["10001"], ["root", "0", "00", "0:10001"]),
    ("signal", ["SIGTERM", "SIGUSR1"], ["SIGSTOP", "SIGCONT", "TERM"]),
    ("tmpfs_options", ["size=16m,uid=1000"], ["uid=99999999999", "uid=1\u0663", "size=1\u0663m"]),
    ("environment_value", ["a", 1, {"a": ["b"]}, "\\u0000"], ["x\0y", ["x\0y"], {"a": "\\\0"}, {"a\0": 1}, {True: 1}, {"a": [{None: 1}]}]),
    ("header_name", ["X-Frame-Options"], ["", "X Bad", "X-A: y\nZ", "X:"]),
    ("header_value", ["default-src 'self'", "", "x" * 4094], [None, "a\nb", "ü", 1.5, True, "x" * 5000, " a"]),
    (
        "hsts or empty",
        ["", "max-age=63072000; includeSubDomains", 'MAX-AGE="0";', "max-age=1; preload ;includesubdomains"],
        [
            *(
                "max-age=soon",
                "max-age",
                "max-age=-1",
                "includeSubDomains",
                "63072000",
                "max-age=1, preload",
                "max-age=1; includeSubdomain",
            ),
            *("max-age=1; max-age=2", "max-age=1\nX: y", 'max-age="1', "max-age=1y", None, 31536000),
        ],
    ),
    (
        "content_security_policy or empty",
        [
            "",
            "default-src 'self' data:; upgrade-insecure-requests;",
            "Script-Src 'nonce-a' none.example",
            "sandbox; new-thing x",
            "report-to none",
        ],
        [
            "default-scr 'self'",
            "default-src self",
            "img-src 'self'; IMG-SRC *",
            "default-src: 'self'",
            "script-src nonce-abc",
            "a\nb",
            "ü",
            None,
        ],
    ),
    (
        "curves",
        ["X25519:prime256v1", "x448", "P-256:secp384r1", "X25519MLKEM768", "SecP256r1MLKEM768:brainpoolP256r1tls13:ffdhe2048"],
        ["", "X25519; ssl_protocols TLSv1", "a b", "X25518", "auto:X25519", "X25519:", "prime256"],
    ),
    ("postgres_name", ["app", "my-app", "Übung"], ["", "none", "PUBLIC", "pg_x", "a b", 'a"b', "a\nb", "x" * 64, None]),
    ("redis_user", ["app", "default"], ["", "a b", "a\nb", None]),
    (
        "redis_rule",
        ["~*", "&*", "+@all", "-@dangerous", "+acl|list", "%R~x", "(+get ~a)"],
        ["", "+@all\nuser evil on nopass ~* +@all", "nopass", ">password", "+@bogus", "+", "a b", "on", "#abc", "(nopass)"],
    ),
    (
        {"map": {"keys": "postgres_setting", "values": "setting_value"}},
        [{"work_mem": "4MB", "a.b": 1, "c": True, "d": 0.9}],
        [{"work_mem = '4MB'\nfsync": "off"}, {"a": {"b": []}}, {"a": "x'\nfsync = off\n#"}, {"a": None}, ["a"]],
    ),
    (
        {"list": {"fields": {"name": "volume", "path": "path", "mode": "one of rw ro"}, "required": ["name", "path"]}},
        [[], [{"name": "xx", "path": "/x"}], [{"name": "xx", "path": "/x", "mode": "ro"}]],
        [[{"name": "x1"}], [{"name": "xx", "path": "/x", "mode": "rwx"}], [{"name": "xx", "path": "/x", "modus": "ro"}], ["a"], "a", None],
    ),
    (
        {"map": {"keys": "environment_name", "values": "environment_value"}},
        [{"A": "1", "B": True, "C": [1, {"x": None}], "D": None, "E": 1.5}],
        [{"A=B": "1"}, {"": "1"}, {1: "1"}, {"A B": "1"}, {"A": {1, 2}}, "A=1"],
    ),
    (
        {"map": {"keys": "path", "values": "tmpfs_options or empty"}},
        [{"/run": "", "/x": "size=16m,mode=1777"}],
        [{"/run": "size=-1m"}, {"run": ""}, {"/run": "size=16m,bogus"}, {"/run": None}, {"/run": "size=0"}],
    ),
    (
        "calendar or never",
        ["never", "*-*-* 02:15:00", "daily", "Mon..Fri *-*-* 22:30", "Sun 03:00", "2126-11-23", "Mon *-*-* 02:00 UTC"],
        ["nonsense", "", None, "*-*-* 25:00:00", "99:99", "Moonday 03:00", "*-13-* 03:00", "daily\n[Service]", "02:15:00\nUnit=x"],
    ),
    (
        "repository or empty",
        [
            "",
            "/offsite/a",
            "sftp:u@h:/x",
            "s3:https://s3.example.com/b",
            "s3:s3.amazonaws.com/b",
            "rest:https://h:8000/a",
            "rest:https://u@h/a",
            "b2:x:y",
        ],
        [
            "rest:https://u:p@h/a",
            "sftp://u:p@h//a",
            "s3:http://u:p@h/b",
            "rest:not a url",
            "nonsense://x",
            "/srv/x",
            "sftp:",
            "s3:",
            "x",
            "rest:",
            "/offsite/../etc",
            "C:\\x",
        ],
    ),
    ("seconds 1..60", [1], [0, -1, "soon"]),
    ("boolean", [True, "on", "no", 1, "False"], ["maybe", "", None, 2, [True]]),
    (
        "moment or end",
        [
            "end",
            "2026-11-23T02:15:00+00:00",
            "2026-11-23 02:15:00Z",
            "2028-02-29 02:15:59.500Z",
            "2026-12-01 04:11:02.089662+00",
            "2026-12-01 04:11:02.08966-03",
            "2026-11-23T02:15:00+0100",
            "2026-11-23T02:15:00.123456789Z",
        ],
        [
            "yesterday",
            "2026-13-01T00:00:00Z",
            "",
            "--help",
            "2026-02-30T10:00",
            "2027-02-29T10:00",
            "2026-11-23T24:00",
            "2026-11-23T02:15:00",
            "2026-11-23T02:15:00+25:00",
            "2026-11-23T02:15:00 +1",
            "\u0662026-11-23T02:15",
        ],
    ),
    (
        "since",
        ["10m", "3d", "2026-11-23 02:15", "2026-11-23T02:15:00Z", "2028-02-29T02:15:00+02:00", "2026-12-01T04:11:04.844452123Z"],
        ["0m", "10", "2026-02-30T10:00", "2026-04-31 10:00", "0000-01-01T00:00", "2026-11-23T02:60", "\u06610m", "", None],
    ),
    (
        "regular_expression",
        ["", "timeout|refused", r"a\++", "[a++]", "(?i)x{2,3}?", "(?:x)+", r"\(?>"],
        ["(", "*", "a++b", "a*+", "a?+", "a{2}+", "(?>x)y", "(a|(?:b(?>c)))", None],
    ),
    ("point or latest", ["latest", "20261123T021500Z"], ["--help", "newest", "", None, 20261123]),
    ({"list": "store"}, [["postgres", "volumes"], []], [["mysql"], [None], ["postgres, redis"], "postgres"]),
    ("stores", ["postgres", "postgres, redis", ["chroma"]], ["", "mysql", None, [], "postgres redis"]),
    ("any_user or empty", ["root", "", 0], ["a b", None, "a:b:c"]),
    ("user or empty", ["", "app", "10001", 1000, "app:app"], ["root", "0", "a b", None, "0:0"]),
    ("uid", ["10001", 10001], ["0", "-1", "app", ""]),
    (
        "secret_text",
        ["abc", "a b", "", " -----BEGIN X-----\nabc\n-----END X-----\n"],
        ["abc\n", " abc", "abc\t", "abc\r\n", "\n", "a\0b", None],
    ),
    ("credential", ["abc", '{\n  "type": "service_account"\n}\n'], ["", " ", "abc\n", " x", "a\0b", None, 5]),
    (
        "private_key or empty",
        [
            "",
            "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl\n-----END OPENSSH PRIVATE KEY-----",
            "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl\n-----END OPENSSH PRIVATE KEY-----\n",
        ],
        [
            "ssh-ed25519 AAAAC3Nz backup",
            "id_ed25519",
            "x",
            "-----BEGIN OPENSSH PRIVATE KEY----- b3Bl -----END OPENSSH PRIVATE KEY-----",
            "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl\n",
        ],
    ),
    (
        "known_hosts or empty",
        [
            "",
            "# a\n\nhost ssh-ed25519 AAAAC3Nz\n",
            "[h]:22,::1 ecdsa-sha2-nistp256 AAAAE2+/= of a",
            "@cert-authority *.example.com ssh-rsa AAAAB3",
        ],
        ["x", "ssh-ed25519 AAAAC3Nz", "host ssh-ed25519", "# nothing", "host ssh-ed25519 AAAAC3Nz\nx", "host ssh-ed25519 C3Nz", None],
    ),
    ("secret", ["t7Hq2Lw9Zx4Nv6Bk8Mr3"], ["t7Hq2Lw9Zx4Nv6Bk8Mr3\n", " t7Hq2Lw9Zx4Nv6Bk8Mr3", "t7Hq2Lw9Zx\x004Nv6Bk8Mr3", "short", None, 5]),
    ("git_ref or empty", ["", "main", "v1.0", "feature/x"], ["--upload-pack=x", "a b", "a..\n", None]),
    (
        {"map": {"keys": "redis_setting", "values": "setting_value", "named": {"databases": "count 1..1000"}}},
        [{"databases": 16, "hz": "x"}, {"databases": "16"}],
        [{"databases": 0}, {"databases": "x"}, {"Databases": 16}, {"hz": None}],
    ),
    ("file", ["x.pem", "/nonexistent/vault.yml", "~/key"], ["", " ", "a\nb", "/tmp", "~", "inventories/", None]),
    ("folder", ["backend", "a/b.c"], ["../x", "/etc", "-f", None]),
    (
        "healthcheck",
        [[], ["NONE"], ["CMD", "true"], ["CMD", "nc", "-z", "localhost", 80], ["CMD-SHELL", "test -e /up && curl -f localhost"]],
        [
            ["curl", "-f", "http://localhost/"],
            ["CMD-SHELL", "curl", "-f", "http://localhost/"],
            ["CMD"],
            ["CMD-SHELL"],
            ["CMD", ""],
            ["CMD-SHELL", " "],
            ["NONE", "x"],
            ["cmd", "true"],
            "curl -f localhost",
            None,
            "",
            True,
            {"test": ["CMD", "true"]},
            ["CMD", "x", 1.5],
            ["CMD", "x", True],
            ["CMD", None],
            [["CMD", "x"]],
            ["CMD", "a\0b"],
        ],
    ),
    (
        "security_txt",
        [
            f"Contact: {uri}\nExpires: 2027-01-01T00:00:00Z\n"
            for uri in ("mailto:a@example.com", "https://example.com/report", "tel:+1-201-555")
        ],
        [
            *(f"Contact: {text}\nExpires: 2027-01-01T00:00:00Z" for text in ("a@example.com", "http://example.com/report", "Jo Doe", "")),
            "Contact: mailto:a@example.com",
            *(f"Contact: mailto:a@example.com\nExpires: {text}" for text in ("2027-01-01", "2027-01-01 00:00+00", "2027-02-30T00:00:00Z")),
        ],
    ),
    ("text", ["One\nTwo"], ["a\x00b", ["x"], None, "a\x1bb"]),
]


def test_a_restore_may_be_asked_for_every_store_that_it_knows_and_for_no_other():
    """The program on the host has a list of its own, as nothing of the controller is there."""
    assert forms.STORES == decide.STORES
    assert moments.MOMENT.pattern == decide.MOMENT.pattern
    assert all(store in str(forms.KINDS[kind].sentence) for kind in ("store", "stores") for store in decide.STORES)


@pytest.mark.parametrize(("form", "value"), [(form, value) for form, good, _ in EXAMPLES for value in good], ids=str)
def test_what_has_its_form_passes(form: Any, value: Any):
    assert message(form, value) == ""


@pytest.mark.parametrize(("form", "value"), [(form, value) for form, _, bad in EXAMPLES for value in bad], ids=repr)
def test_a_value_without_it_is_refused_in_one_sentence(form: Any, value: Any):
    assert message(form, value)
    assert "\n" not in message(form, value)


@pytest.mark.parametrize("kind", forms.KINDS)
def test_no_kind_of_value_makes_a_check_fail(kind: str):
    for value in (None, True, 0, -1, 1.5, float("nan"), "", "x" * 100_000, "\x00", "\ud800", "ü\n", [], {}, [None], {"a": object()}):
        list(forms.problems(forms.parsed(kind), value))


@pytest.mark.parametrize(
    ("form", "value", "sentence"),
    [
        ("port", "80a", ": must be a port, an integer from 1 to 65535"),
        (
            {"list": "route"},
            ["/ok", "api/"],
            f"[1]: must be {forms.KINDS['route'].sentence}",
        ),
        ("version", 1.1, ": must be a version of letters, digits, _, . and -, as the tag of an image; it is a number: quote the value"),
        (
            "volume",
            None,
            ": must be the name of a volume, two letters, digits, _, . and - or more; it is null: remove the line, or give it a value",
        ),
        ("calendar or never", "x", ": must be a calendar event of systemd, as *-*-* 02:15:00; see `systemd-analyze calendar`, or 'never'"),
        ("calendar", "2020-01-01", ": must be a calendar event with a time to come, which this one has not"),
        (
            "calendar",
            "Sun..Thu 03:00",
            ": must be a calendar event in whose ranges Monday is the first day: write Sun,Mon..Thu for Sun..Thu",
        ),
        ("share", 2, ": must be a share from 0.001 to 1"),
        ("postgres_name", "none", ": must be another name: PostgreSQL keeps none for itself"),
        ("image", "redis", ": must be an image with its version, as repository:version"),
        (
            "healthcheck",
            ["curl", "-f", "http://localhost/"],
            ": must be a list that begins with CMD, CMD-SHELL or NONE: write [CMD, curl, …]",
        ),
        ("healthcheck", ["cmd", "true"], ": must be a list that begins with CMD, CMD-SHELL or NONE: write [CMD, true]"),
        ("healthcheck", "curl -f localhost", ": must be a list: write [CMD-SHELL, 'curl -f localhost']"),
        (
            "healthcheck",
            ["CMD-SHELL", "curl", "-f", "a b"],
            ": must be CMD-SHELL and one string, as the shell would leave out what follows: write [CMD-SHELL, \"curl -f 'a b'\"]",
        ),
        ("healthcheck", ["CMD"], ": must be CMD and a program with its arguments"),
        ("one of rw ro", "rwx", ": must be one of rw, ro"),
    ],
)
def test_sentences(form: Any, value: Any, sentence: str):
    assert message(form, value) == sentence


@pytest.mark.parametrize("value", ["web1", "my_host", "Web-1.example.org", "10.0.0.1", "fd00::1", "::1", "fe80::1%eth0", "bücher.example"])
def test_what_ssh_connects_to_is_a_host(value: str):
    assert message("ssh_host", value) == ""


@pytest.mark.parametrize("value", ["", "[fd00::1]", "10.0.0.1:22", "web1:22", "ops@web1", "ssh://web1", "-oProxyCommand=x", "web 1"])
def test_what_ssh_does_not_connect_to_is_refused(value: str):
    assert "an IP address or a name as ssh takes it" in message("ssh_host", value)


@pytest.mark.parametrize("text", next(good for kind, good, _bad in EXAMPLES if kind == "moment or end")[1:])
def test_a_host_reads_each_moment_as_the_controller_does(text: str):
    """Also Python 3.10, which takes neither +00 nor a tenth of a second."""
    assert decide.parse_time(text) == moments.parse_moment(text)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[.]\d{6}[+-]\d\d:\d\d", decide.plain(text))
