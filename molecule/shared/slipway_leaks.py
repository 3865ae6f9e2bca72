"""Look for the values of secrets where none may be."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from slipway_lab import Lab, LabHost

# Runs on a host, as root. Prints where which secret was found, by name; never a value.
SEARCH = r"""
import glob, os, subprocess
needles = {name: [text.encode() for text in texts] for name, texts in V["needles"].items()}
found, looked = [], {}

def look(place, data):
    kind = place.partition(" ")[0]
    looked[kind] = looked.get(kind, 0) + 1
    for name, texts in needles.items():
        if any(text in data for text in texts):
            found.append([place, name])

def output(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False).stdout

me = {os.getpid(), os.getppid()}
for folder in glob.glob("/proc/[0-9]*"):
    if int(folder[6:]) in me:
        continue
    for part in ("cmdline", "environ"):
        try:
            with open(f"{folder}/{part}", "rb") as file:
                look(f"process {folder}/{part}", file.read())
        except OSError:
            pass
written = []
for container in output("docker", "ps", "--all", "--quiet").decode().split():
    inspected = output("docker", "inspect", container)
    look(f"inspect {container}", inspected)
    look(f"log {container}", output("docker", "logs", container))
    described = json.loads(inspected)[0]
    # What its processes wrote outside of the volumes: its own layer, and its folders in memory.
    written.append(("layer", described["GraphDriver"]["Data"]["UpperDir"]))
    if described["State"]["Running"]:
        written += [("memory", f"/proc/{described['State']['Pid']}/root{path}") for path in described["HostConfig"].get("Tmpfs") or {}]
for image in set(output("docker", "images", "--quiet").decode().split()):
    look(f"image {image}", output("docker", "inspect", image) + output("docker", "history", "--no-trunc", image))
look("journal all", output("journalctl", "--no-pager", "--quiet"))
volumes = glob.glob("/var/lib/docker/volumes/*/_data")
# What a database keeps is its own; a volume of logs is not.
kept = [volume for volume in volumes if volume.split("/")[-2] not in V["stores"]]
tops = ["/etc", "/opt", "/var/log", "/tmp", "/root", "/home", "/run", "/var/tmp", "/var/lib/docker/containers", *kept]
for kind, top in [("file", top) for top in tops] + written:
    # Counted even where nothing is in it.
    look(f"{kind} {top}", b"")
    for folder, folders, files in os.walk(top):
        if folder.startswith("/etc/slipway/") and os.path.basename(folder) == "secrets":
            for name in files:
                with open(f"{folder}/{name}", "rb") as file:
                    look(f"secret {folder}/{name}", file.read())
            continue
        for name in files:
            path = f"{folder}/{name}"
            if os.path.isfile(path) and not os.path.islink(path) and os.path.getsize(path) < 50e6:
                try:
                    with open(path, "rb") as file:
                        look(f"{kind} {path}", file.read())
                except OSError:
                    pass
print(json.dumps({"found": found, "looked": looked}))
"""


def needles(lab: Lab, secrets: dict[str, str] | None = None) -> dict[str, list[str]]:
    """Return for each secret the texts that would give it away."""
    values = dict(secrets or lab.secrets)
    texts = {name: list({value, quote(value, safe="")}) for name, value in values.items()}
    for key in ("ca.key", "server.key"):
        path = lab.inventory / "pki" / key
        if path.exists():
            # A line of the key's body.
            texts[f"pki/{key}"] = [path.read_text(encoding="utf-8").splitlines()[1]]
    assert all(len(text) >= 20 for many in texts.values() for text in many), "a short text is found by accident"
    return texts


def leaks(host: LabHost, texts: dict[str, list[str]]) -> tuple[list[str], list[str], dict[str, int]]:
    """Return where secrets were found outside the secret folders, those found inside, and how much was looked at."""
    answer = host.python(SEARCH, needles=texts, stores=["postgres_data", "redis_data", "chroma_data"])
    outside = [f"{host}: {name} is in {place}" for place, name in answer["found"] if not place.startswith("secret ")]
    inside = [name for place, name in answer["found"] if place.startswith("secret ")]
    return outside, inside, answer["looked"]


def shown(text: str, texts: dict[str, list[str]]) -> list[str]:
    """Return the names of secrets that some text holds."""
    return [name for name, many in texts.items() if any(one in text for one in many)]


def kept_output(lab: Lab, name: str) -> Path:
    """Return where the output of a run is kept for later tests; only its owner may read it."""
    return lab.state / f"{name}.log"
