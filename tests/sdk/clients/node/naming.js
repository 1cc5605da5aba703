// The naming half of the Node SDK behind the line protocol of tests/sdk.
'use strict';

const { NacosNamingClient } = require('nacos');

const subscriptions = new Map();

// The SDK's own log, into stderr: stdout is the line protocol.
const logger = {};
for (const level of ['info', 'warn', 'error']) {
  logger[level] = (...text) => process.stderr.write(`${new Date().toISOString()} ${level} ${require('util').format(...text)}\n`);
}
logger.debug = () => {};

async function connect(command) {
  const client = new NacosNamingClient({
    logger,
    serverList: command.servers.join(','),
    namespace: command.namespace || 'public',
  });
  client._hostReactor.on('error', error => logger.warn(error.message));
  await client.ready();
  return client;
}

function given(instance) {
  const { cluster, ...rest } = instance;
  return { ...rest, clusterName: cluster };
}

// Lists it was told carry what the server said, `clusterName` among it.
const listed = hosts => hosts.map(({ ip, port, weight, healthy, enabled, ephemeral, clusterName, metadata }) =>
  ({ ip, port, weight, healthy, enabled, ephemeral, cluster: clusterName, metadata }));

async function run(client, command, say) {
  const { op, service, group, listener } = command;
  const clusters = (command.clusters || []).join(',');
  switch (op) {
    case 'register':
      await client.registerInstance(service, given(command.instance), group);
      return true;
    case 'deregister':
      await client.deregisterInstance(service, given(command.instance), group);
      return true;
    case 'instances': return listed(await client.getAllInstances(service, group, clusters, false));
    case 'select': return listed(await client.selectInstances(service, group, clusters, command.healthy, false));
    case 'subscribe': {
      const told = hosts => say({ event: 'instances', listener, hosts: listed(hosts) });
      subscriptions.set(listener, told);
      client.subscribe({ serviceName: service, groupName: group, clusters }, told);
      return true;
    }
    case 'unsubscribe':
      client.unSubscribe({ serviceName: service, groupName: group, clusters }, subscriptions.get(listener));
      return true;
    case 'close':
      // Its close() waits for a poll that may be under way.
      client.close().catch(error => logger.warn(error.message));
      return true;
    default: throw new Error('unsupported: ' + op);
  }
}

module.exports = { connect, run };
