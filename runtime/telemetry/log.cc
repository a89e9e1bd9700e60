#include "runtime/telemetry/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include "runtime/json/json.h"

namespace tutti {

LogLevel LogLevelFromName(absl::string_view name) {
  if (name == "debug") return LogLevel::kDebug;
  if (name == "warning") return LogLevel::kWarning;
  if (name == "error") return LogLevel::kError;
  return LogLevel::kInfo;
}

Logger::Logger(std::string service, LogLevel least, const Clock& clock)
    : service_(std::move(service)),
      least_(least),
      clock_(clock),
      out_(std::make_shared<spdlog::logger>(service_, std::make_shared<spdlog::sinks::stderr_sink_mt>())) {
  out_->set_pattern("%v");
  out_->set_level(spdlog::level::trace);
}

Logger::~Logger() { out_->flush(); }

void Logger::Write(LogLevel level, absl::string_view message, Fields fields) {
  if (level < least_) return;
  static constexpr const char* kNames[] = {"DEBUG", "INFO", "WARNING", "ERROR"};
  nlohmann::ordered_json line;
  line["time"] = absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", clock_.Now(), absl::UTCTimeZone());
  line["severity"] = kNames[static_cast<int>(level)];
  line["service"] = service_;
  line["message"] = std::string(message);
  for (const auto& [key, value] : fields) {
    if (!value.empty()) line[std::string(key)] = std::string(value);
  }
  out_->info("{}", line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
  out_->flush();
}

}  // namespace tutti
