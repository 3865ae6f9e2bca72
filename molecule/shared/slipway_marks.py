"""Something of the tests' own in each store, written and read over the store's own protocol, by which restored data is known."""

from __future__ import annotations

import json
from typing import Any

from slipway_lab import Lab, sql

#: Run where the backups' container runs, which reaches the stores of all hosts.
CHROMA = """
import json, sys, urllib.request
given = json.load(sys.stdin)
server = json.load(open("/etc/slipway/current/backup.json"))["chroma"]["url"]
collections = server + "/api/v2/tenants/default_tenant/databases/default_database/collections"
def call(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    return json.loads(urllib.request.urlopen(request, timeout=20).read() or b"null")
url = collections + "/" + call(collections, {"name": "marks", "get_or_create": True})["id"]
if given["word"]:
    place = [float(len(given["word"])), 1.0]
    call(url + "/upsert", {"ids": [given["word"]], "embeddings": [place], "documents": [given["word"] + " in Chroma"]})
found = call(url + "/query", {"query_embeddings": [[0.0, 1.0]], "n_results": 50, "include": ["documents", "distances"]})
print(json.dumps([found["ids"][0], found["documents"][0], found["distances"][0]]))
"""


def chroma(lab: Lab, word: str = "") -> list[Any]:
    """Write a record, if there is a word for it; return the answer to a query, nearest first."""
    host = lab.service("backup").host
    program = f"import subprocess\nargv = ['docker', 'exec', '--interactive', 'slipway-backup', 'python3', '-c', {CHROMA!r}]\n"
    program += "print(subprocess.run(argv, input=json.dumps(V), capture_output=True, text=True, check=True).stdout)"
    return list(host.python(program, word=word))


def redis(lab: Lab, *command: str) -> str:
    """Return what Redis answers to its administrator."""
    line = f"REDISCLI_AUTH=$(cat /run/secrets/admin_password) redis-cli -e --user admin --no-auth-warning {' '.join(command)}"
    return lab.service("redis").execute("sh", "-c", line).strip()


def leave(lab: Lab, word: str) -> None:
    """Write the word to each store."""
    postgres = lab.service("postgres")
    sql(postgres, "create table if not exists marks (word text, at timestamptz not null default clock_timestamp())")
    sql(postgres, f"insert into marks values ('{word}')")
    redis(lab, "SET", f"mark:{word}", f"{word}-in-Redis")
    chroma(lab, word)


def found(lab: Lab) -> dict[str, Any]:
    """Return all that was left, by store."""
    keys = sorted(redis(lab, "--raw", "KEYS", "'mark:*'").split())
    return {
        "postgres": json.loads(sql(lab.service("postgres"), "select coalesce(json_agg(marks order by at), '[]') from marks")),
        "redis": {key: redis(lab, "--raw", "GET", key) for key in keys},
        "chroma": chroma(lab),
    }
