#include "tests/support/suite_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "runtime/config/yaml_proto.h"
#include "runtime/rpc/channel.h"
#include "tutti/monitoring/v1/monitoring_service.grpc.pb.h"

namespace tutti::testing {

void Pause() { std::this_thread::sleep_for(std::chrono::milliseconds(10)); }

ChildProcess::ChildProcess(const std::vector<std::string>& command, const std::string& log_file,
                           const std::map<std::string, std::string>& env) {
  pid_ = fork();
  if (pid_ != 0) return;
  int log = open(log_file.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
  dup2(log, 1);
  dup2(log, 2);
  for (const auto& [key, value] : env) setenv(key.c_str(), value.c_str(), 1);
  unsetenv("TUTTI_BIN");
  unsetenv("TUTTI_SOURCE");
  std::vector<char*> argv;
  for (const auto& word : command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  execv(argv[0], argv.data());
  _exit(127);
}

ChildProcess::~ChildProcess() {
  if (!done_) {
    Signal(SIGKILL);
    Wait(10);
  }
}

void ChildProcess::Signal(int signal) {
  if (!done_) kill(pid_, signal);
}

bool ChildProcess::Running() {
  if (!done_ && waitpid(pid_, &status_, WNOHANG) == pid_) done_ = true;
  return !done_;
}

int ChildProcess::Wait(double seconds) {
  if (!Eventually([this] { return !Running(); }, seconds)) {
    kill(pid_, SIGKILL);
    waitpid(pid_, &status_, 0);
    done_ = true;
    return -1000;
  }
  return WIFEXITED(status_) ? WEXITSTATUS(status_) : -WTERMSIG(status_);
}

std::string ReadAll(const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  std::stringstream out;
  out << in.rdbuf();
  return out.str();
}

std::pair<std::string, int> Shell(const std::string& command) {
  FILE* pipe = popen(command.c_str(), "r");
  std::string out;
  char buffer[4096];
  size_t n;
  while ((n = fread(buffer, 1, sizeof buffer, pipe)) > 0) out.append(buffer, n);
  int status = pclose(pipe);
  return {out, WIFEXITED(status) ? WEXITSTATUS(status) : -1};
}

std::string NewTempDir(const std::string& name) {
  std::string pattern = absl::StrCat(std::filesystem::temp_directory_path().string(), "/tutti_", name, "_XXXXXX");
  return mkdtemp(pattern.data());
}

std::string BinDir() {
  const char* dir = getenv("TUTTI_BIN");
  return dir ? dir : "build/release/bin";
}

std::string SourceDir() {
  const char* dir = getenv("TUTTI_SOURCE");
  return dir ? dir : std::filesystem::current_path().string();
}

SuiteProcess::SuiteProcess(Options options) : options_(std::move(options)), ports_(FreePorts(7)) {}

SuiteProcess::~SuiteProcess() { Kill9(); }

std::string SuiteProcess::address(size_t process) const { return absl::StrCat("127.0.0.1:", ports_[process + 1]); }
std::string SuiteProcess::grpc_address() const { return address(0); }
std::string SuiteProcess::http_url() const { return absl::StrCat("http://127.0.0.1:", ports_[0]); }

std::vector<std::vector<std::string>> SuiteProcess::Commands() const {
  std::vector<std::string> flags = {
      absl::StrCat("--gateway.http-port=", ports_[0]), absl::StrCat("--gateway.grpc-port=", ports_[1]),
      absl::StrCat("--state-manager.data-dir=", options_.data_dir), "--telemetry.metrics-port=-1"};
  flags.insert(flags.end(), options_.flags.begin(), options_.flags.end());
  std::vector<std::vector<std::string>> commands;
  if (options_.form == Form::kOneProcess) {
    commands.push_back({BinDir() + "/tutti", "up"});
  } else {
    const char* names[] = {"gateway",      "workflow-engine", "agent-manager",
                           "tool-service", "state-manager",   "monitoring"};
    for (int i = 0; i < 6; ++i) {
      flags.push_back(absl::StrCat("--peers.", names[i], "=127.0.0.1:", ports_[static_cast<size_t>(i) + 1]));
      if (i > 0) flags.push_back(absl::StrCat("--", names[i], ".grpc-port=", ports_[static_cast<size_t>(i) + 1]));
    }
    flags.push_back(absl::StrCat("--telemetry.otlp-endpoint=127.0.0.1:", ports_[6]));
    for (const char* name : names) commands.push_back({absl::StrCat(BinDir(), "/tutti-", name)});
  }
  for (auto& command : commands) command.insert(command.end(), flags.begin(), flags.end());
  return commands;
}

bool SuiteProcess::Start() {
  children_.clear();
  log_files_.clear();
  std::filesystem::create_directories(options_.data_dir);
  int number = 0;
  for (const auto& command : Commands()) {
    log_files_.push_back(absl::StrCat(options_.data_dir, "/process-", number++, ".log"));
    children_.push_back(std::make_unique<ChildProcess>(command, log_files_.back(), options_.env));
  }
  channel_ = ConnectTo(grpc_address(), 64 << 20);
  auto stub = tutti::monitoring::v1::MonitoringService::NewStub(channel_);
  bool died = false;
  bool serving = Eventually(
      [&] {
        for (auto& child : children_) died |= !child->Running();
        grpc::ClientContext context;
        context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(2));
        tutti::monitoring::v1::GetHealthResponse health;
        bool ok = stub->GetHealth(&context, tutti::monitoring::v1::GetHealthRequest(), &health).ok();
        return died || (ok && health.status() == "SERVING");
      },
      30);
  if (died || !serving) std::cerr << "the suite does not serve:\n" << logs();
  return serving && !died;
}

void SuiteProcess::Kill9() {
  for (auto& child : children_) child->Signal(SIGKILL);
  for (auto& child : children_) child->Wait(10);
  children_.clear();
}

void SuiteProcess::Signal(int signal) {
  for (auto& child : children_) child->Signal(signal);
}

void SuiteProcess::Replace(size_t process) {
  children_[process]->Signal(SIGKILL);
  children_[process]->Wait(10);
  children_[process] = std::make_unique<ChildProcess>(Commands()[process], log_files_[process], options_.env);
}

std::vector<int> SuiteProcess::Terminate() {
  for (auto& child : children_) child->Signal(SIGTERM);
  std::vector<int> codes;
  for (auto& child : children_) codes.push_back(child->Wait(20));
  children_.clear();
  return codes;
}

std::string SuiteProcess::logs() const {
  std::string out;
  for (const auto& file : log_files_) absl::StrAppend(&out, "--- ", file, "\n", ReadAll(file));
  return out;
}

tutti::workflow::v1::Run WaitForEnd(SuiteProcess& suite, const std::string& run_id, double seconds) {
  auto stub = suite.runs();
  tutti::workflow::v1::GetRunResponse response;
  Eventually(
      [&] {
        grpc::ClientContext context;
        context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(5));
        tutti::workflow::v1::GetRunRequest request;
        request.set_run_id(run_id);
        response.Clear();
        return stub->GetRun(&context, request, &response).ok() && response.run().has_end_time();
      },
      seconds);
  return response.run();
}

tutti::workflow::v1::WorkflowSpec SpecFromYaml(const std::string& text) {
  tutti::workflow::v1::WorkflowSpec spec;
  absl::Status status = ParseYaml(text, "spec", &spec);
  if (!status.ok()) {
    std::cerr << status.message() << "\n";
    abort();
  }
  return spec;
}

}  // namespace tutti::testing
