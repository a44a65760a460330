#include "slowpath/api_schemas.h"

#include <nlohmann/json.hpp>
#include <string_view>

#include "slowpath/control_protocol.h"

namespace braid {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kSchemas = R"json({
  "Nothing": {"type": "object", "description": "Done; there is nothing to tell", "maxProperties": 0},
  "Health": {
    "type": "object",
    "required": ["status", "components"],
    "properties": {
      "status": {"$ref": "#/components/schemas/HealthStatus"},
      "components": {
        "type": "object",
        "additionalProperties": {
          "type": "object",
          "required": ["status"],
          "properties": {
            "status": {"$ref": "#/components/schemas/HealthStatus"},
            "why": {"type": "string", "description": "Where it is not ok"}
          }
        }
      }
    }
  },
  "HealthStatus": {"type": "string", "enum": ["ok", "degraded", "failed"]},
  "Status": {
    "type": "object",
    "required": ["state", "version", "mode", "device", "pid", "warnings", "peers"],
    "properties": {
      "state": {"type": "string", "enum": ["running", "stopped", "failed"]},
      "version": {"type": "string"},
      "mode": {"type": "string", "enum": ["client", "server"]},
      "device": {"type": "string"},
      "pid": {"type": "integer"},
      "uptime_s": {"type": "number", "minimum": 0, "description": "Of a tunnel that runs"},
      "io": {"type": "string"},
      "aead": {"type": "string"},
      "memory_rss_bytes": {"type": "integer", "minimum": 0},
      "offloads": {"type": "object"},
      "network": {"type": "object"},
      "egress": {"$ref": "#/components/schemas/EgressStatus"},
      "warnings": {"type": "array", "items": {"type": "string"}},
      "peers": {"type": "array", "items": {"$ref": "#/components/schemas/PeerStatus"}},
      "workers": {"type": "array", "items": {"$ref": "#/components/schemas/WorkerStatus"}},
      "handed_over": {"type": "integer", "minimum": 0},
      "drops": {
        "type": "object",
        "description": "Packets that were not delivered, by reason",
        "additionalProperties": {"type": "integer", "minimum": 0}
      }
    }
  },
  "EgressStatus": {
    "type": "object",
    "description": "What leaves past the tunnel, where any rule may say so",
    "required": ["rules", "shortcuts", "tcp", "udp", "dns", "groups"],
    "properties": {
      "rules": {"type": "integer", "minimum": 0},
      "shortcuts": {
        "type": "boolean",
        "description": "Whether the kernel turns round packets of lasting TCP flows by itself"
      },
      "tcp": {
        "type": "object",
        "description": "Flows that are there, that wait to be connected, and what became of all",
        "additionalProperties": {"type": "integer", "minimum": 0}
      },
      "udp": {
        "type": "object",
        "description": "Sessions that are there, what became of all, and of their datagrams",
        "additionalProperties": {"type": "integer", "minimum": 0}
      },
      "dns": {
        "type": "object",
        "description": "Queries of DNS past the tunnel, and what became of them",
        "additionalProperties": {"type": "integer", "minimum": 0}
      },
      "groups": {
        "type": "object",
        "description": "The upstreams of each group, by its name",
        "additionalProperties": {
          "type": "array", "items": {"$ref": "#/components/schemas/UpstreamStatus"}
        }
      }
    }
  },
  "UpstreamStatus": {
    "type": "object",
    "required": ["address", "up", "breaker", "weight_now", "open", "begun", "failed"],
    "properties": {
      "address": {"type": "string"},
      "up": {"type": "boolean", "description": "What its last check has found"},
      "breaker": {"type": "string", "enum": ["closed", "open", "half_open"]},
      "breaker_opened": {"type": "integer", "minimum": 0},
      "weight_now": {
        "type": "number",
        "description": "Its weight, less for failures and latency; 0 while it is not used"
      },
      "open": {"type": "integer", "minimum": 0},
      "begun": {"type": "integer", "minimum": 0},
      "failed": {"type": "integer", "minimum": 0},
      "latency_ms": {"type": "number", "nullable": true},
      "udp": {"type": "boolean", "nullable": true, "description": "Whether it relays datagrams"},
      "trouble": {"type": "string"},
      "pool": {"type": "object", "additionalProperties": {"type": "integer", "minimum": 0}}
    }
  },
  "PeerStatus": {
    "type": "object",
    "required": ["name", "public_key", "established", "rx_bytes", "tx_bytes", "paths"],
    "properties": {
      "name": {"type": "string"},
      "public_key": {"type": "string"},
      "established": {"type": "boolean"},
      "cipher": {"type": "string", "nullable": true},
      "last_handshake_s": {"type": "number", "nullable": true},
      "mtu": {"type": "integer", "nullable": true},
      "rx_bytes": {"type": "integer", "minimum": 0},
      "tx_bytes": {"type": "integer", "minimum": 0},
      "rx_packets": {"type": "integer", "minimum": 0},
      "tx_packets": {"type": "integer", "minimum": 0},
      "bond": {"type": "object"},
      "paths": {"type": "array", "items": {"$ref": "#/components/schemas/PathStatus"}}
    }
  },
  "PathStatus": {
    "type": "object",
    "required": ["name", "state", "rx_bytes", "tx_bytes", "loss", "rate_mbps"],
    "properties": {
      "name": {"type": "string"},
      "interface": {"type": "string", "nullable": true},
      "problem": {"type": "string", "nullable": true},
      "local": {"type": "string"},
      "remote": {"type": "string", "nullable": true},
      "state": {"$ref": "#/components/schemas/PathState"},
      "mtu": {"type": "integer", "nullable": true},
      "rtt_ms": {"type": "number", "nullable": true},
      "loss": {"type": "number", "minimum": 0, "maximum": 1},
      "rx_bytes": {"type": "integer", "minimum": 0},
      "tx_bytes": {"type": "integer", "minimum": 0},
      "rate_mbps": {"type": "number", "minimum": 0},
      "quota": {"$ref": "#/components/schemas/QuotaStatus"},
      "sending": {"type": "object"}
    }
  },
  "PathState": {"type": "string", "enum": ["up", "standby", "down"]},
  "WorkerStatus": {
    "type": "object",
    "required": ["cpu", "rx_packets", "tx_packets"],
    "properties": {
      "cpu": {"type": "integer", "nullable": true},
      "rx_packets": {"type": "integer", "minimum": 0},
      "tx_packets": {"type": "integer", "minimum": 0},
      "handed_over": {"type": "integer", "minimum": 0}
    }
  },
  "QuotaStatus": {
    "type": "object",
    "nullable": true,
    "required": ["used_bytes", "limit_bytes", "resets"],
    "properties": {
      "used_bytes": {"type": "integer", "minimum": 0},
      "limit_bytes": {"type": "integer", "minimum": 0},
      "resets": {
        "type": "string",
        "description": "The day, or what it waits for",
        "example": "2026-12-01"
      }
    }
  },
  "Metrics": {
    "type": "object",
    "required": ["text"],
    "properties": {"text": {"type": "string", "description": "What GET /metrics answers"}}
  },
  "Config": {
    "type": "object",
    "description": "As the configuration file, with what was left out there filled in",
    "required": ["mode", "network", "tunnel"],
    "properties": {
      "mode": {"type": "string", "enum": ["client", "server"]},
      "network": {"type": "object"},
      "tunnel": {"type": "object"}
    }
  },
  "Peers": {
    "type": "object",
    "required": ["peers"],
    "properties": {
      "peers": {
        "type": "array",
        "items": {
          "type": "object",
          "required": ["name"],
          "properties": {"name": {"type": "string"}}
        }
      }
    }
  },
  "Peer": {
    "type": "object",
    "required": ["name", "public_key", "established", "up", "addresses"],
    "properties": {
      "name": {"type": "string"},
      "public_key": {"type": "string"},
      "established": {"type": "boolean"},
      "up": {"type": "boolean", "description": "Established, and a path answers"},
      "addresses": {
        "type": "array",
        "items": {"type": "string"},
        "description": "Inner addresses of its own"
      },
      "device": {"type": "string"},
      "measure_port": {"type": "integer"}
    }
  },
  "Paths": {
    "type": "object",
    "required": ["paths", "problem"],
    "properties": {
      "paths": {"type": "array", "items": {"$ref": "#/components/schemas/Path"}},
      "problem": {"type": "string", "nullable": true}
    }
  },
  "Path": {
    "type": "object",
    "required": ["id", "name", "from", "open", "problem", "weight", "standby", "peers"],
    "properties": {
      "id": {"type": "integer", "minimum": 0},
      "name": {"type": "string"},
      "interface": {"type": "string", "nullable": true},
      "address": {"type": "string", "nullable": true},
      "endpoint": {"type": "string", "nullable": true},
      "from": {"type": "string", "description": "Who has asked for it"},
      "weight": {"type": "number"},
      "rate_mbps": {"type": "number", "nullable": true, "description": "null: measured"},
      "standby": {"type": "boolean"},
      "open": {"type": "boolean"},
      "problem": {"type": "string", "nullable": true},
      "quota": {"$ref": "#/components/schemas/QuotaStatus"},
      "peers": {
        "type": "array",
        "items": {
          "type": "object",
          "required": ["name", "state"],
          "properties": {
            "name": {"type": "string"},
            "state": {"$ref": "#/components/schemas/PathState"},
            "remote": {"type": "string", "nullable": true},
            "rtt_ms": {"type": "number", "nullable": true}
          }
        }
      }
    }
  },
  "NewPath": {
    "type": "object",
    "required": ["name"],
    "additionalProperties": false,
    "properties": {
      "name": {"type": "string", "minLength": 1, "maxLength": 64},
      "address": {"type": "string", "description": "Of this machine; this or an interface"},
      "interface": {"type": "string"},
      "endpoint": {"type": "string", "example": "192.0.2.1:7700"},
      "weight": {"$ref": "#/components/schemas/PathWeight"},
      "rate_mbps": {"$ref": "#/components/schemas/PathRate"},
      "standby": {"type": "boolean"},
      "quota": {
        "type": "object",
        "required": ["gb"],
        "additionalProperties": false,
        "properties": {
          "gb": {"type": "number", "minimum": 0.001, "maximum": 1000000},
          "reset_day": {"type": "integer", "minimum": 1, "maximum": 31}
        }
      }
    }
  },
  "PathWeight": {"type": "number", "minimum": 0.01, "maximum": 100},
  "PathRate": {
    "oneOf": [
      {"type": "number", "minimum": 0.1, "maximum": 100000},
      {"type": "string", "enum": ["auto"]}
    ]
  },
  "AddedPath": {
    "type": "object",
    "required": ["name", "open", "problem"],
    "properties": {
      "name": {"type": "string"},
      "open": {"type": "boolean"},
      "problem": {"type": "string", "nullable": true}
    }
  },
  "PathChange": {
    "type": "object",
    "minProperties": 1,
    "additionalProperties": false,
    "properties": {
      "weight": {"$ref": "#/components/schemas/PathWeight"},
      "rate_mbps": {"$ref": "#/components/schemas/PathRate"},
      "standby": {"type": "boolean"}
    }
  },
  "BondingMode": {"type": "string", "enum": ["stripe", "preferred", "redundant"]},
  "WantedMode": {
    "type": "object",
    "required": ["mode"],
    "additionalProperties": false,
    "properties": {"mode": {"$ref": "#/components/schemas/BondingMode"}}
  },
  "Mode": {
    "type": "object",
    "required": ["mode", "peers"],
    "properties": {
      "mode": {"$ref": "#/components/schemas/BondingMode"},
      "peers": {
        "type": "array",
        "items": {
          "type": "object",
          "required": ["name", "mode", "other_end"],
          "properties": {
            "name": {"type": "string"},
            "mode": {"$ref": "#/components/schemas/BondingMode"},
            "other_end": {
              "type": "string",
              "nullable": true,
              "enum": ["follows", "asked", "cannot", null]
            }
          }
        }
      }
    }
  },
  "Scope": {
    "type": "object",
    "additionalProperties": false,
    "properties": {
      "scope": {
        "type": "string",
        "enum": ["tunnel", "daemon"],
        "description": "tunnel, as by default: until POST /v1/start; daemon: the process ends"
      }
    }
  },
  "ReloadOptions": {
    "type": "object",
    "additionalProperties": false,
    "properties": {
      "only_show": {"type": "boolean", "description": "Only tell what differs"}
    }
  },
  "Reload": {
    "type": "object",
    "required": ["changes", "warnings"],
    "properties": {
      "changes": {
        "type": "array",
        "items": {
          "type": "object",
          "required": ["pointer", "before", "after", "needs_restart"],
          "properties": {
            "pointer": {"type": "string"},
            "before": {"nullable": true},
            "after": {"nullable": true},
            "needs_restart": {"type": "boolean"}
          }
        }
      },
      "warnings": {"type": "array", "items": {"type": "string"}}
    }
  },
  "RateLimit": {
    "type": "object",
    "required": ["rate_mbps"],
    "additionalProperties": false,
    "properties": {
      "rate_mbps": {"type": "number", "minimum": 0.1, "maximum": 100000},
      "burst_kb": {"type": "number", "minimum": 1}
    }
  },
  "LimitsBothWays": {
    "type": "object",
    "nullable": true,
    "description": "rate_mbps and burst_kb for both ways, or send and receive; null ends them",
    "additionalProperties": false,
    "properties": {
      "rate_mbps": {"type": "number", "minimum": 0.1, "maximum": 100000},
      "burst_kb": {"type": "number", "minimum": 1},
      "send": {"$ref": "#/components/schemas/RateLimit"},
      "receive": {"$ref": "#/components/schemas/RateLimit"}
    }
  },
  "Limits": {
    "type": "object",
    "additionalProperties": false,
    "properties": {
      "total": {"$ref": "#/components/schemas/LimitsBothWays"},
      "peers": {
        "type": "object",
        "additionalProperties": {"$ref": "#/components/schemas/LimitsBothWays"}
      }
    }
  },
  "Throttle": {
    "type": "object",
    "required": ["total", "peers"],
    "properties": {
      "total": {"type": "object"},
      "peers": {
        "type": "array",
        "items": {
          "type": "object",
          "required": ["name", "send", "receive", "sending", "receiving"],
          "properties": {"name": {"type": "string"}}
        }
      }
    }
  },
  "Event": {
    "type": "object",
    "description": "The data of a server-sent event; its type and id stand beside it",
    "required": ["time_ms", "data"],
    "properties": {
      "time_ms": {"type": "integer", "description": "Since 1970"},
      "data": {"type": "object"}
    }
  },
  "OpenApi": {"type": "object", "required": ["openapi", "info", "paths"]},
  "Error": {
    "type": "object",
    "required": ["code", "message", "details"],
    "additionalProperties": false,
    "properties": {
      "code": {"type": "string", "enum": []},
      "message": {"type": "string"},
      "details": {"type": "object"}
    }
  }
})json";

}  // namespace

const Json& ApiSchemas() {
  static const Json schemas = [] {
    Json parsed = Json::parse(kSchemas);
    for (const std::string_view name : ControlCodeNames()) {
      parsed["Error"]["properties"]["code"]["enum"].push_back(std::string(name));
    }
    return parsed;
  }();
  return schemas;
}

}  // namespace braid
