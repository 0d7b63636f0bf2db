// Aegis-gateway joins the agent in a VM to the places where people write to it. The
// daemon runs it beside instances of a kit that names it.
package main

import (
	"os"

	"github.com/xfeldman/aegisvm/internal/gateway"
	"github.com/xfeldman/aegisvm/internal/gateway/telegram"
	"github.com/xfeldman/aegisvm/internal/gateway/webhook"
)

func main() { os.Exit(gateway.Main(os.Args[1:], telegram.Kind, webhook.Kind)) }
