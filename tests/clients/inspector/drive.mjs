// Drives an MCP server with the MCP Inspector's CLI; see ../README.md for the command line and output.
// The CLI does one thing per run, so connecting and each step are a process, and a connection, of their own.

import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { emit, installedRequire, listedResources, parseCommandLine, textOf, TIMEOUT_MS } from '../cli.mjs';

const options = parseCommandLine(process.argv.slice(2));
const manifest = installedRequire().resolve('@modelcontextprotocol/inspector/package.json');
const launcher = join(dirname(manifest), 'clients', 'launcher', 'build', 'index.js');

// The Inspector keeps state below HOME: a throw-away one keeps runs apart and the user's own untouched.
const home = mkdtempSync(join(tmpdir(), 'callgate-inspector-'));
let running;
/** Ends the Inspector with its stdio server: they are a process group, led by the Inspector. */
function killRunning() {
  try {
    if (running) process.kill(-running.pid, 'SIGKILL');
  } catch {
    // They have ended already.
  }
}
process.on('exit', () => {
  killRunning();
  rmSync(home, { recursive: true, force: true });
});
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(1));

function inspectorArguments(method) {
  const args = ['--cli', '--method', ...method, '--format', 'json', '--protocol-era', options.era ?? 'auto'];
  args.push('--connect-timeout', String(TIMEOUT_MS));
  if (options.transport !== 'stdio') {
    // --stored-auth-only: when refused, fail instead of starting an OAuth login in a browser.
    args.push('--transport', options.transport, '--server-url', options.url, '--stored-auth-only');
    if (options.token) args.push('--header', `Authorization: Bearer ${options.token}`);
    return args;
  }
  // The server gets the real HOME.
  if (process.env.HOME) args.push('-e', `HOME=${process.env.HOME}`);
  return [...args, '--transport', 'stdio', '--', ...options.command];
}

/** Runs the Inspector once: { result } or { error: { code, message, answered } }. */
async function inspect(...method) {
  let stdout = '';
  let stderr = '';
  let timedOut = false;
  running = spawn(process.execPath, [launcher, ...inspectorArguments(method)], {
    env: { ...process.env, HOME: home },
    detached: true, // a process group of its own
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  running.stdout.setEncoding('utf8').on('data', (text) => (stdout += text));
  running.stderr.setEncoding('utf8').on('data', (text) => (stderr += text));
  const timer = setTimeout(() => {
    timedOut = true;
    killRunning();
  }, TIMEOUT_MS);
  await new Promise((resolve, reject) => running.on('error', reject).on('close', resolve));
  clearTimeout(timer);
  running = undefined;
  process.stderr.write(stderr);

  // A result with isError is printed as any other (and told again on stderr).
  for (const line of stdout.split('\n')) {
    const parsed = parseObject(line);
    if (parsed?.result) return { result: parsed.result };
  }
  if (timedOut) return { error: { code: null, message: 'the Inspector timed out', answered: false } };
  // Among what the server itself wrote to stderr, the Inspector's error is one JSON object in one line.
  for (const line of stderr.split('\n').reverse()) {
    const envelope = parseObject(line)?.error;
    if (typeof envelope?.code === 'string') return { error: readEnvelope(envelope) };
  }
  return { error: { code: null, message: 'the Inspector printed no result', answered: false } };
}

function parseObject(line) {
  try {
    return line.startsWith('{') ? JSON.parse(line) : undefined;
  } catch {
    return undefined;
  }
}

/**
 * The Inspector's error has a word for its kind, a message, and sometimes the HTTP status. It never tells
 * a JSON-RPC code, so `code` is the HTTP status or null.
 */
function readEnvelope({ code: kind, message, status }) {
  const implied = kind === 'auth_required' ? 401 : message.startsWith('Insufficient scope') ? 403 : null;
  const answered = kind !== 'unreachable' && !/connection closed|session is closed|timed out/i.test(message);
  return { code: status ?? implied, message, answered };
}

async function runStep({ line, args }) {
  switch (line.step) {
    case 'list': {
      const { result, error } = await inspect('tools/list');
      return error ? { error } : { tools: result.tools.map((tool) => tool.name) };
    }
    case 'resources': {
      const resources = await inspect('resources/list');
      const templates = await inspect('resources/templates/list');
      const error = resources.error ?? templates.error;
      return error ? { error } : listedResources(resources.result.resources, templates.result.resourceTemplates);
    }
    case 'prompts': {
      const { result, error } = await inspect('prompts/list');
      return error ? { error } : { prompts: result.prompts.map((prompt) => prompt.name) };
    }
    case 'read': {
      const { result, error } = await inspect('resources/read', '--uri', line.uri);
      return error ? { error } : { contents: result.contents };
    }
    case 'get': {
      const given = Object.entries(args).map(([name, value]) => `${name}=${value}`);
      const { result, error } = await inspect('prompts/get', '--prompt-name', line.prompt, '--prompt-args', ...given);
      return error ? { error } : { messages: result.messages };
    }
    case 'call':
      break;
    default:
      return { error: { code: null, message: `the Inspector does no ${line.step}`, answered: false } };
  }
  const call = ['tools/call', '--tool-name', line.tool, '--tool-args-json', JSON.stringify(args)];
  const { result, error } = await inspect(...call);
  if (error) return { error };
  return {
    isError: result.isError ?? false,
    text: textOf(result.content),
    structured: result.structuredContent ?? null,
  };
}

function emitOutcome(line, { error, ...outcome }) {
  emit({ ...line, ...(error ? { error: { code: error.code, message: error.message } } : outcome) });
}

async function drive() {
  const { result, error } = await inspect('initialize');
  emitOutcome(
    { step: 'connect' },
    error ? { error } : { protocol: result.protocolVersion ?? null, server: result.serverInfo?.name ?? null },
  );
  if (error) return 3;
  let exitCode = 0;
  for (const step of options.steps) {
    const outcome = await runStep(step);
    emitOutcome(step.line, outcome);
    if (outcome.error && !outcome.error.answered) exitCode = 1;
  }
  return exitCode;
}

process.exitCode = await drive();
