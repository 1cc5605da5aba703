package main

import (
	"errors"
	"fmt"

	"github.com/nacos-group/nacos-sdk-go/v2/clients"
	"github.com/nacos-group/nacos-sdk-go/v2/clients/naming_client"
	"github.com/nacos-group/nacos-sdk-go/v2/model"
	"github.com/nacos-group/nacos-sdk-go/v2/vo"
)

// An instance as the line protocol has it.
type instance struct {
	IP        string            `json:"ip"`
	Port      uint64            `json:"port"`
	Weight    float64           `json:"weight"`
	Healthy   bool              `json:"healthy"`
	Enabled   bool              `json:"enabled"`
	Ephemeral bool              `json:"ephemeral"`
	Cluster   string            `json:"cluster"`
	Metadata  map[string]string `json:"metadata"`
}

var (
	registries    = map[string]naming_client.INamingClient{}
	subscriptions = map[string]*vo.SubscribeParam{}
)

func connectNaming(c *command) error {
	param, err := settings(c)
	if err != nil {
		return err
	}
	client, err := clients.NewNamingClient(*param)
	if err != nil {
		return err
	}
	mutex.Lock()
	registries[c.Client] = client
	mutex.Unlock()
	return nil
}

func runNaming(client naming_client.INamingClient, c *command) (any, error) {
	switch c.Op {
	case "register":
		return client.RegisterInstance(registration(c, c.Instance))
	case "batch":
		var all []vo.RegisterInstanceParam
		for _, one := range c.Instances {
			all = append(all, registration(c, one))
		}
		return client.BatchRegisterInstance(vo.BatchRegisterInstanceParam{
			ServiceName: c.Service, GroupName: c.Group, Instances: all,
		})
	case "deregister":
		return client.DeregisterInstance(vo.DeregisterInstanceParam{
			Ip: c.Instance.IP, Port: c.Instance.Port, Cluster: c.Instance.Cluster, Ephemeral: c.Instance.Ephemeral,
			ServiceName: c.Service, GroupName: c.Group,
		})
	case "instances":
		found, err := client.SelectAllInstances(vo.SelectAllInstancesParam{
			ServiceName: c.Service, GroupName: c.Group, Clusters: c.Clusters,
		})
		return list(found), err
	case "select":
		found, err := client.SelectInstances(vo.SelectInstancesParam{
			ServiceName: c.Service, GroupName: c.Group, Clusters: c.Clusters, HealthyOnly: c.Healthy,
		})
		if err != nil && err.Error() == "instance list is empty!" {
			// How this SDK says that there is none.
			return list(nil), nil
		}
		return list(found), err
	case "pick":
		picked := map[string]int{}
		for picks := 0; picks < c.Count; picks++ {
			one, err := client.SelectOneHealthyInstance(vo.SelectOneHealthInstanceParam{
				ServiceName: c.Service, GroupName: c.Group, Clusters: c.Clusters,
			})
			if err != nil {
				return nil, err
			}
			picked[fmt.Sprintf("%s:%d", one.Ip, one.Port)]++
		}
		return picked, nil
	case "subscribe":
		listener := c.Listener
		param := &vo.SubscribeParam{
			ServiceName: c.Service, GroupName: c.Group, Clusters: c.Clusters,
			SubscribeCallback: func(hosts []model.Instance, _ error) {
				say(map[string]any{"event": "instances", "listener": listener, "hosts": list(hosts)})
			},
		}
		mutex.Lock()
		subscriptions[listener] = param
		mutex.Unlock()
		return true, client.Subscribe(param)
	case "unsubscribe":
		mutex.Lock()
		param := subscriptions[c.Listener]
		mutex.Unlock()
		return true, client.Unsubscribe(param)
	case "services":
		found, err := client.GetAllServicesInfo(vo.GetAllServiceInfoParam{
			GroupName: c.Group, PageNo: c.PageNo, PageSize: c.PageSize,
		})
		return map[string]any{"count": found.Count, "names": found.Doms}, err
	case "close":
		client.CloseClient()
		return true, nil
	}
	return nil, errors.New("unsupported: " + c.Op)
}

func registration(c *command, one instance) vo.RegisterInstanceParam {
	return vo.RegisterInstanceParam{
		Ip: one.IP, Port: one.Port, Weight: one.Weight, Enable: one.Enabled, Healthy: one.Healthy,
		Metadata: one.Metadata, ClusterName: one.Cluster, Ephemeral: one.Ephemeral,
		ServiceName: c.Service, GroupName: c.Group,
	}
}

func list(hosts []model.Instance) []instance {
	found := []instance{}
	for _, host := range hosts {
		found = append(found, instance{
			IP: host.Ip, Port: host.Port, Weight: host.Weight, Healthy: host.Healthy, Enabled: host.Enable,
			Ephemeral: host.Ephemeral, Cluster: host.ClusterName, Metadata: host.Metadata,
		})
	}
	return found
}
