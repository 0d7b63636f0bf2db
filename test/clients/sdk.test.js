// The official TypeScript SDK's client.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { agent, connect, golden, patience, tool } from "./world.js";

let client;
before(async () => { client = await connect(); });
after(async () => { await client.close(); });

const sh = (script, options) => tool(client, "exec", { name: "ts", command: ["sh", "-c", script] }, options);

test("it is told what there is", async () => {
  const { tools } = await client.listTools();
  assert.deepEqual(tools.map((t) => t.name), golden.map((t) => t.name));
  assert.match(client.getInstructions(), /instance_start/);
  assert.equal(client.getServerVersion().name, "aegis");
});

test("start, with progress", async () => {
  const told = [];
  const started = await tool(client, "instance_start", {
    name: "ts", command: ["python3", "-c", agent], expose: ["8000"],
  }, { onprogress: (p) => told.push(p) });
  assert.equal(started.state, "running");
  assert.match(started.endpoints[0].url, /^http:\/\/127\.0\.0\.1:\d+$/);
  assert.ok(told.length > 0, "nothing was told");
});

test("exec: status, streams, errors", async () => {
  const ran = await sh("echo out; echo err >&2; exit 3");
  assert.equal(ran.exit_code, 3);
  assert.equal(ran.stdout, "out\n");
  assert.equal(ran.stderr, "err\n");
  const failed = await client.callTool({ name: "exec", arguments: { name: "nobody", command: ["true"] } });
  assert.equal(failed.isError, true);
  assert.match(failed.content[0].text, /no instance "nobody"[\s\S]*next:/);
});

test("six calls side by side, of which one is cancelled", async () => {
  const off = new AbortController();
  const cancelled = assert.rejects(sh("touch /tmp/begun; sleep 7654 & wait", { signal: off.signal }), /cancel/i);
  const others = [1, 2, 3, 4, 5].map(async (i) => {
    const ran = await sh(`until [ -e /tmp/begun ]; do sleep 0.1; done; echo ${i}`);
    assert.equal(ran.stdout, `${i}\n`);
    if (i === 1) off.abort("cancelled by the test");
  });
  await Promise.all([cancelled, ...others]);
  // What was cancelled ends in the VM too.
  while ((await sh("grep -lx sleep /proc/[0-9]*/comm 2>/dev/null | wc -l")).stdout !== "0\n");
});

test("a port, and its page", async () => {
  const port = await tool(client, "instance_expose", { name: "ts", port: 8000 });
  const page = await fetch(port.url); // the door waits until the server listens
  assert.equal(await page.text(), "hello from the VM\n");
});

test("files and logs", async () => {
  await tool(client, "file_write", { name: "ts", path: "/srv/notes/a.txt", content: "é\n" });
  assert.equal((await tool(client, "file_read", { name: "ts", path: "/srv/notes/a.txt" })).content, "é\n");
  const logs = await tool(client, "logs", { name: "ts", tail: 50 });
  assert.ok(logs.lines.some((l) => l.line === "listening"));
});

test("a conversation with the agent", patience, async () => {
  const sent = await tool(client, "tether_send", { instance: "ts", text: "hello" });
  assert.equal(sent.session_id, "default");
  for (let after = sent.ingress_seq; ;) {
    const page = await tool(client, "tether_read", { instance: "ts", after_seq: after, wait_ms: 10_000 });
    const answer = page.frames.find((f) => f.type === "assistant.done");
    if (answer) {
      assert.deepEqual(answer.payload, { text: "you said: hello", reply_to: sent.msg_id });
      break;
    }
    after = page.next_seq;
  }
});

test("delete", async () => {
  assert.equal((await tool(client, "instance_delete", { name: "ts" })).status, "deleted");
  assert.deepEqual((await tool(client, "instance_list", {})).instances, []);
});
