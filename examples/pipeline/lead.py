"""Leads a pipeline: starts a worker, forks it when it is ready, hands out parts, puts the answers together."""
import collections
import concurrent.futures
import json
import os
import urllib.error
import urllib.request

API = os.environ["AEGIS_GUEST_API"]


def ask(method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    try:
        return urllib.request.urlopen(urllib.request.Request(API + path, data, method=method))
    except urllib.error.HTTPError as e:
        error = json.load(e)["error"]
        raise SystemExit(f"{error['message']} ({error.get('hint', error['code'])})") from None


def run(worker, command):
    """Runs a command in a worker, and returns what it prints."""
    out = []
    for line in ask("POST", f"/v1/instances/{worker['id']}/exec", {"command": command}):
        event = json.loads(line)
        if event.get("stream") == "stdout":
            out.append(event["line"])
        elif event.get("done") and event["exit_code"] != 0:
            raise SystemExit(f"{worker['handle']}: {command}: status {event['exit_code']}")
    return "\n".join(out)


def count(worker, part):
    url = "http://127.0.0.1:9000/"
    return json.loads(run(worker, ["curl", "-s", "--data-binary", f"@/workspace/{part}", url]))


parts = sorted(os.path.join("parts", name) for name in os.listdir("parts"))
first = json.load(ask("POST", "/v1/instances", {
    "handle": "worker", "workspace": ".", "command": ["python3", "/workspace/worker.py"], "wait": True,
}))
run(first, ["curl", "-s", "--retry", "60", "--retry-connrefused", "--retry-delay", "1", "http://127.0.0.1:9000/"])
print("a worker is ready")
copies = json.load(ask("POST", f"/v1/instances/{first['id']}/fork", {"count": len(parts) - 1}))
workers = [first] + copies
print(len(copies), "more, as ready as the first")

with concurrent.futures.ThreadPoolExecutor() as pool:
    counts = list(pool.map(count, workers, parts))
total = sum((collections.Counter(c) for c in counts), collections.Counter())
for word, n in sorted(total.items(), key=lambda x: (-x[1], x[0]))[:3]:
    print(n, word)
for worker in workers:
    ask("DELETE", f"/v1/instances/{worker['id']}")
