// The Go SDK behind the line protocol of tests/sdk (README.md there).
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nacos-group/nacos-sdk-go/v2/clients"
	"github.com/nacos-group/nacos-sdk-go/v2/clients/config_client"
	"github.com/nacos-group/nacos-sdk-go/v2/common/constant"
	"github.com/nacos-group/nacos-sdk-go/v2/vo"
)

type command struct {
	ID        int      `json:"id"`
	Op        string   `json:"op"`
	Client    string   `json:"client"`
	Servers   []string `json:"servers"`
	Namespace string   `json:"namespace"`
	TimeoutMs uint64   `json:"timeoutMs"`
	DataID    string   `json:"dataId"`
	Group     string   `json:"group"`
	Content   string   `json:"content"`
	Type      string   `json:"type"`
	Md5       string   `json:"md5"`
	Ips       string   `json:"ips"`
	Tag       string   `json:"tag"`
	Listener  string   `json:"listener"`

	Domain    string     `json:"domain"`
	Service   string     `json:"service"`
	Instance  instance   `json:"instance"`
	Instances []instance `json:"instances"`
	Clusters  []string   `json:"clusters"`
	Healthy   bool       `json:"healthy"`
	Count     int        `json:"count"`
	PageNo    uint32     `json:"pageNo"`
	PageSize  uint32     `json:"pageSize"`
}

var (
	mutex   sync.Mutex
	found   = map[string]config_client.IConfigClient{}
	out     = bufio.NewWriter(os.Stdout)
	outLock sync.Mutex
)

func main() {
	say(map[string]any{"event": "ready", "sdk": "nacos-sdk-go v2.3.5"})
	in := bufio.NewReaderSize(os.Stdin, 1<<20)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		var c command
		if err := json.Unmarshal([]byte(line), &c); err != nil {
			panic(err)
		}
		if c.Op == "quit" {
			return
		}
		go func() {
			ok, err := run(&c)
			if err != nil {
				say(map[string]any{"id": c.ID, "error": err.Error()})
				return
			}
			say(map[string]any{"id": c.ID, "ok": ok})
		}()
	}
}

func run(c *command) (any, error) {
	if c.Op == "connect" && c.Domain == "naming" {
		return true, connectNaming(c)
	}
	if c.Op == "connect" {
		client, err := connect(c)
		if err != nil {
			return nil, err
		}
		mutex.Lock()
		found[c.Client] = client
		mutex.Unlock()
		return true, nil
	}
	mutex.Lock()
	client, registry := found[c.Client], registries[c.Client]
	mutex.Unlock()
	if registry != nil {
		return runNaming(registry, c)
	}
	if client == nil {
		return nil, errors.New("no such client")
	}
	param := vo.ConfigParam{
		DataId: c.DataID, Group: c.Group, Content: c.Content, Type: c.Type,
		CasMd5: c.Md5, BetaIps: c.Ips, Tag: c.Tag,
	}
	switch c.Op {
	case "get":
		content, err := client.GetConfig(param)
		for err != nil && strings.Contains(err.Error(), "ConfigQueryRequest is limited") {
			// The SDK refuses by itself more than a few reads of one config in a second.
			time.Sleep(200 * time.Millisecond)
			content, err = client.GetConfig(param)
		}
		if err != nil && strings.Contains(err.Error(), "config data not exist") {
			return nil, nil
		}
		if content == "" && err == nil {
			// "" is how this SDK says that there is none.
			return nil, nil
		}
		return content, err
	case "publish", "cas", "beta", "tag":
		return client.PublishConfig(param)
	case "remove":
		return client.DeleteConfig(param)
	case "listen":
		listener := c.Listener
		param.OnChange = func(_, _, _, content string) {
			say(map[string]any{"event": "change", "listener": listener, "content": content})
		}
		return true, client.ListenConfig(param)
	case "close":
		client.CloseClient()
		return true, nil
	}
	return nil, errors.New("unsupported: " + c.Op)
}

func connect(c *command) (config_client.IConfigClient, error) {
	param, err := settings(c)
	if err != nil {
		return nil, err
	}
	return clients.NewConfigClient(*param)
}

func settings(c *command) (*vo.NacosClientParam, error) {
	var servers []constant.ServerConfig
	for _, server := range c.Servers {
		host, text, err := net.SplitHostPort(server)
		if err != nil {
			return nil, err
		}
		port, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return nil, err
		}
		servers = append(servers, *constant.NewServerConfig(host, port))
	}
	scratch, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	timeout := c.TimeoutMs
	if timeout == 0 {
		timeout = 5000
	}
	config := constant.NewClientConfig(
		constant.WithNamespaceId(c.Namespace),
		constant.WithTimeoutMs(timeout),
		constant.WithNotLoadCacheAtStart(true),
		constant.WithLogDir(filepath.Join(scratch, "log")),
		constant.WithCacheDir(filepath.Join(scratch, "cache", c.Client)),
		constant.WithLogLevel("debug"),
		// A cached value in place of the server's would hide what the tests look for.
		constant.WithDisableUseSnapShot(true),
		// By itself it does not tell its user that the last instance has gone.
		constant.WithUpdateCacheWhenEmpty(true),
	)
	return &vo.NacosClientParam{ClientConfig: config, ServerConfigs: servers}, nil
}

func say(line map[string]any) {
	text, err := json.Marshal(line)
	if err != nil {
		panic(err)
	}
	outLock.Lock()
	defer outLock.Unlock()
	// The driver may be gone; then there is nobody to tell.
	_, _ = out.Write(append(text, '\n'))
	_ = out.Flush()
}
