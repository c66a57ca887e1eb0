// Package telemetry is what an operator sees of a running daemon: its metrics,
// and the admin endpoint that serves them beside health and readiness.
//
// Label values come from closed sets (accounts and sinks as configured, lanes,
// outcomes, classes, documented codes), and what is not in one is Other, so the number
// of series is bounded whatever arrives. No metric holds a token or anything of a person.
package telemetry

//go:generate go run ./gen

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// Description says what a metric is. The list of all of them is what the metrics are
// made from, and the tables in the READMEs.
type Description struct {
	// Name is the whole name, Type one of counter, gauge and histogram.
	Name, Type string
	// Labels are its labels; their values come from closed sets.
	Labels []string
	// Help says what it means, in English and in Chinese.
	Help, Chinese string
}

// prefix begins the names of all metrics that are not Go's or the process's.
const prefix = "faceid_ingest_"

// catalog are all metrics, by what an operator asks: is anything at risk, does it flow,
// who passed, what does it cost, what is running. Gauges of what all replicas share are
// the same on each of them.
var catalog = []Description{
	{"nearest_deadline_seconds", "gauge", labels("account"),
		"Time until Tencent deletes the first result that is not stored; negative once it is past, absent while there is none.",
		"距腾讯删除第一个尚未保存的结果的时间；已过期为负，没有则不出现。"},
	{"due_events", "gauge", labels("account", "within"),
		"Events whose results are not stored and will be deleted within a time (1h, 6h, 24h); those past it are counted, too.",
		"结果尚未保存、将在一段时间内（1h、6h、24h）被删除的事件数；已过期的也计入。"},
	{"parked_results", "gauge", nil, "Results that are parked now, of all replicas.", "当前寄存的结果数（所有副本）。"},
	{"parked_bytes", "gauge", nil, "Bytes that parked results take, of all replicas.", "寄存的结果占用的字节数（所有副本）。"},
	{"parking_quota_bytes", "gauge", nil,
		"Bytes that parked results may take; from half of it on, results that have time are not pulled while a sink is down.",
		"寄存可用的字节数；过半之后，sink 不可用期间不再拉取时间充裕的结果。"},
	{"parks_total", "counter", labels("account"), "Results that were parked because a sink did not take them.", "因 sink 不可用而寄存的结果数。"},
	{"dead_letters_total", "counter", labels("account", "reason"), "Events that were given up.", "被放弃的事件数。"},
	{"dead_letters_stored", "gauge", labels("account", "reason"),
		"Dead letters that wait for somebody to look at them, of accounts that are configured.", "等待处理的死信数（已配置的账号）。"},
	{"account_paused", "gauge", labels("account"),
		"Whether this process has paused an account because the API refuses all of its calls.", "本进程是否因 API 拒绝该账号的全部调用而暂停它。"},
	{"sink_up", "gauge", labels("sink"),
		"Whether a sink took what it was given last: 1, or 0 while results wait for it.", "sink 最近一次是否成功：1；有结果在等它时为 0。"},
	{"sink_errors_total", "counter", labels("sink", "class"), "Failed calls of sinks, by class of the error.", "sink 调用失败次数，按错误类别。"},
	{"unconfigured_events", "gauge", nil,
		"Stored events of accounts that are not configured, which nobody takes.", "未配置账号的事件数，无人处理。"},

	{"events_total", "counter", labels("account", "lane", "outcome"), "Deliveries of completion events, by what became of them.", "完成事件的投递次数，按结局。"},
	{"unread_fields_total", "counter", labels("source", "field"),
		"Fields that were not as documented, by what they stood in (event, answer). They are read as far as they can be, and what they stood in is ingested all the same.",
		"与文档不符的字段数，按来源（event、answer）。能读多少读多少，所在的事件或应答照常入库。"},
	{"missing_parts_total", "counter", labels("account", "reason"),
		"Parts of checks, such as photos, that ingested results do not have, by the reason: foreign_place, not_media, not_opened, not_sent, not_found.",
		"已入库结果缺少的部分（如照片）数，按原因：foreign_place、not_media、not_opened、not_sent、not_found。"},
	{"events_in_flight", "gauge", nil, "Events this process holds now.", "本进程当前持有的事件数。"},
	{"backlog_events", "gauge", labels("account", "lane"),
		"Events that are not done: those that no worker has seen, those in work and those that wait for their next try.",
		"尚未完成的事件数：未投递的、处理中的、等待下次尝试的。"},
	{"oldest_event_seconds", "gauge", labels("account"),
		"Age of the oldest event that is not done, parked ones aside; absent while there is none.", "最老的未完成事件的年龄（寄存的除外）；没有则不出现。"},
	{"stage_seconds", "histogram", labels("stage"),
		"Time a stage took for one event: pull, and within it extract and open; archive, record and notify; event_to_ack. Retries in place are included.",
		"一个事件各阶段耗时：pull（其中 extract、open），archive、record、notify，event_to_ack；含就地重试。"},
	{"limiter_limit", "gauge", labels("account"), "Calls per second of the account, of all replicas: its rate_limit.", "账号每秒调用上限（所有副本）：rate_limit。"},
	{"limiter_share", "gauge", labels("account"), "Calls per second that this process may send now.", "本进程当前每秒可发的调用数。"},
	{"limiter_throttles_total", "counter", labels("account"), "Times the API throttled and the rate fell.", "被 API 限流而降速的次数。"},
	{"replicas", "gauge", nil, "Replicas that this process sees alive, itself among them.", "本进程看到的存活副本数（含自己）。"},
	{"spool_bytes", "gauge", nil, "Bytes of inline media in flight.", "处理中的内联媒体字节数。"},
	{"spool_quota_bytes", "gauge", nil, "Bytes of inline media that may be in flight before pulling waits.", "内联媒体的字节上限，达到后拉取等待。"},

	{"verdicts_total", "counter", labels("account", "product", "verdict", "code"),
		"Ingested results, by whether the person passed and the code that says why not: a documented one, unreadable, or other; those of an intention step have its name in front.",
		"已入库结果，按是否通过及原因码：文档所列的码、unreadable 或 other；意愿环节的码前有环节名。"},

	{"api_calls_total", "counter", labels("account", "action", "class", "code"),
		"Calls of the FaceID API, by class of the error (ok if there is none) and its code: a documented one, none if no answer came, or other.",
		"FaceID API 调用次数，按错误类别（成功为 ok）和错误码：文档所列的码；无应答为 none；其余为 other。"},
	{"assets_total", "counter", labels("kind", "form"), "Assets of ingested results, by kind (image, video, audio, unknown) and form (inline, cos).", "已入库结果的媒体数，按种类和形式（inline、cos）。"},
	{"asset_bytes_total", "counter", labels("kind"), "Bytes of inline assets of ingested results.", "已入库结果的内联媒体字节数。"},

	{"expiry_timestamp_seconds", "gauge", labels("what"),
		"When a certificate or credential of this process ends, as Unix time: http.tls, nats.tls, nats.credentials, or those of a sink: sinks.NAME.tls, sinks.NAME.credentials.",
		"本进程的证书或凭证的到期时间（Unix 时间）：http.tls、nats.tls、nats.credentials，或某个 sink 的 sinks.NAME.tls、sinks.NAME.credentials。"},
	{"config_last_reload_successful", "gauge", nil, "Whether the configuration file was accepted when it was last read.", "最近一次读取的配置文件是否被接受。"},
	{"build_info", "gauge", labels("version", "commit", "goversion"), "1, with what is running in its labels.", "恒为 1，标签说明运行的版本。"},
}

func labels(names ...string) []string { return names }

// Catalog returns the descriptions of all metrics of this program, in the order of the
// tables. Beside them a daemon shows those of the Go runtime (go_) and of its process
// (process_).
func Catalog() []Description {
	list := slices.Clone(catalog)
	for i := range list {
		list[i].Name = prefix + list[i].Name
	}
	return list
}

// described returns the description of a metric, by its name without the prefix. One
// that is not there is a mistake in this package.
func described(name, kind string) Description {
	i := slices.IndexFunc(catalog, func(d Description) bool { return d.Name == name })
	if i < 0 || catalog[i].Type != kind {
		panic("telemetry: no " + kind + " " + name + " in the catalog")
	}
	return catalog[i]
}

// WriteTable writes the table of the README: in Chinese, or in English.
func WriteTable(w io.Writer, chinese bool) error {
	head := "| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n"
	if chinese {
		head = "| 指标 | 类型 | 标签 | 含义 |\n| --- | --- | --- | --- |\n"
	}
	var text strings.Builder
	text.WriteString(head)
	for _, d := range Catalog() {
		help := d.Help
		if chinese {
			help = d.Chinese
		}
		names := ""
		if len(d.Labels) > 0 {
			names = "`" + strings.Join(d.Labels, "`, `") + "`"
		}
		fmt.Fprintf(&text, "| `%s` | %s | %s | %s |\n", d.Name, d.Type, names, help)
	}
	_, err := io.WriteString(w, text.String())
	return err
}
