// The Node SDK (HTTP) behind the line protocol of tests/sdk (README.md there).
'use strict';

const path = require('path');
const readline = require('readline');
const { NacosConfigClient } = require('nacos');
const naming = require('./naming');

const clients = new Map();
const registries = new Map();

function say(line) {
  process.stdout.write(JSON.stringify(line) + '\n');
}

async function connect(command) {
  // Not NacosConfigClient itself: it shares one client, and its namespace, among all of a process.
  const client = new NacosConfigClient.DataClient({
    serverAddr: command.servers.join(','),
    namespace: command.namespace || '',
    requestTimeout: command.timeoutMs || 5000,
    cacheDir: path.join(process.cwd(), 'cache', command.client),
  });
  // A failed poll of its background loop is retried by itself; what a test must see, it sees in answers.
  client.on('error', error => process.stderr.write(String(error.message) + '\n'));
  await client.ready();
  clients.set(command.client, client);
  return true;
}

async function run(command) {
  if (command.op === 'connect' && command.domain === 'naming') {
    registries.set(command.client, await naming.connect(command));
    return true;
  }
  if (command.op === 'connect') return connect(command);
  if (registries.has(command.client)) return naming.run(registries.get(command.client), command, say);
  const client = clients.get(command.client);
  const { dataId, group } = command;
  switch (command.op) {
    case 'get': {
      // null: there is none.
      const content = await client.getConfig(dataId, group);
      return content === undefined ? null : content;
    }
    case 'publish': return client.publishSingle(dataId, group, command.content, { type: command.type });
    case 'remove': return client.remove(dataId, group);
    case 'listen':
      client.subscribe({ dataId, group }, content => {
        say({ event: 'change', listener: command.listener, content: content === undefined ? null : content });
      });
      return true;
    case 'close':
      client.close();
      clients.delete(command.client);
      return true;
    default: throw new Error('unsupported: ' + command.op);
  }
}

say({ event: 'ready', sdk: 'nacos ' + require('nacos/package.json').version });
readline.createInterface({ input: process.stdin, crlfDelay: Infinity }).on('line', line => {
  const command = JSON.parse(line);
  if (command.op === 'quit') process.exit(0);
  run(command).then(
    ok => say({ id: command.id, ok }),
    error => say({ id: command.id, error: `${error.name}: ${error.message}` })
  );
}).on('close', () => process.exit(0));
