// The Inspector's command line: a server of its own for each call.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { env, golden, server } from "./world.js";

const program = fileURLToPath(new URL("node_modules/.bin/mcp-inspector", import.meta.url));

async function inspect(...args) {
  const { stdout } = await promisify(execFile)(program, ["--cli", "-e", `AEGIS_HOME=${env.AEGIS_HOME}`, "-e", "AEGIS_ROUTER=off", server, ...args], { env, maxBuffer: 16 << 20 });
  return JSON.parse(stdout);
}

async function tool(name, args) {
  const words = Object.entries(args).flatMap(([k, v]) => ["--tool-arg", `${k}=${typeof v === "string" ? v : JSON.stringify(v)}`]);
  const result = await inspect("--method", "tools/call", "--tool-name", name, ...words);
  assert.ok(!result.isError, JSON.stringify(result.content));
  return result.structuredContent;
}

test("the tools", async () => {
  const { tools } = await inspect("--method", "tools/list");
  assert.deepEqual(tools.map((t) => t.name), golden.map((t) => t.name));
});

test("a life of an instance", async () => {
  assert.equal((await tool("instance_start", { name: "inspected", command: ["sleep", "infinity"] })).handle, "inspected");
  assert.equal((await tool("exec", { name: "inspected", command: ["uname", "-s"] })).stdout, "Linux\n");
  assert.match((await tool("instance_expose", { name: "inspected", port: 80 })).url, /^http:/);
  assert.ok(Array.isArray((await tool("logs", { name: "inspected", tail: 5 })).lines));
  assert.equal((await tool("instance_delete", { name: "inspected" })).status, "deleted");
});
