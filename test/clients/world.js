// What the tests share: the programs, and the server's environment.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";

if (!process.env.AEGIS_HOME || !process.env.AEGIS_TEST_BIN) {
  throw new Error("AEGIS_HOME and AEGIS_TEST_BIN are not set: run this with make check-clients");
}

export const server = process.env.AEGIS_TEST_BIN + "/aegis-mcp";
// Some clients keep the environment from their servers, HOME aside: whatever they leave out,
// no test may reach the user's own ~/.aegis.
export const env = { ...process.env, AEGIS_ROUTER: "off", HOME: process.env.AEGIS_HOME + "/user" };

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
export const agent = readFileSync(here("agent.py"), "utf8");
export const golden = JSON.parse(readFileSync(here("../../internal/mcpserver/testdata/tools.golden.json"), "utf8"));

// Starting a VM for the first time makes a template; hosts of tests are busy.
export const patience = { timeout: 300_000 };

export async function connect() {
  const client = new Client({ name: "aegis-client-tests", version: "1" });
  await client.connect(new StdioClientTransport({ command: server, env, stderr: "inherit" }));
  return client;
}

// tool calls a tool that must not fail, and returns its structured result.
export async function tool(client, name, args, options = {}) {
  const result = await client.callTool({ name, arguments: args }, undefined, { ...patience, ...options });
  if (result.isError) throw new Error(`${name}: ${result.content[0].text}`);
  return result.structuredContent;
}
