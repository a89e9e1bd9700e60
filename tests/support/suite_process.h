// A suite as real processes, in either form, on free ports and in a temporary folder.
#pragma once

#include <grpcpp/channel.h>
#include <sys/types.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/ports.h"
#include "tutti/workflow/v1/run_service.grpc.pb.h"

namespace tutti::testing {

// A program started by a test; killed when it goes.
class ChildProcess {
 public:
  ChildProcess(const std::vector<std::string>& command, const std::string& log_file,
               const std::map<std::string, std::string>& env = {});
  ~ChildProcess();
  void Signal(int signal);
  // The exit code, or -signal. Kills after `seconds`, and answers -1000.
  int Wait(double seconds);
  bool Running();
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = -1;
  bool done_ = false;
  int status_ = 0;
};

// Calls `condition` until it is true; false after `seconds`.
template <class Condition>
bool Eventually(Condition condition, double seconds);
void Pause();  // between two looks at a condition
std::string ReadAll(const std::string& file);
// Standard output and exit code of a shell command.
std::pair<std::string, int> Shell(const std::string& command);
std::string NewTempDir(const std::string& name);
// A folder from the environment of ctest: programs, sources.
std::string BinDir();
std::string SourceDir();

enum class Form { kOneProcess, kSixProcesses };

class SuiteProcess {
 public:
  struct Options {
    Form form = Form::kOneProcess;
    std::string data_dir;
    std::vector<std::string> flags;  // for every process
    std::map<std::string, std::string> env;
  };
  explicit SuiteProcess(Options options);
  ~SuiteProcess();
  // Starts the processes and waits until all services serve. False, with the logs on standard error, when they do not.
  bool Start();
  void Kill9();
  // To all processes.
  void Signal(int signal);
  // kill -9 of one process and its start anew, without waiting for it. In six processes: 0 gateway, 1 workflow-engine,
  // 2 agent-manager, 3 tool-service, 4 state-manager, 5 monitoring.
  void Replace(size_t process);
  // SIGTERM to all; the exit codes.
  std::vector<int> Terminate();

  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }
  std::string grpc_address() const;
  std::string http_url() const;
  // The gRPC port of one of six processes, numbered as for Replace.
  std::string address(size_t process) const;
  std::string logs() const;
  // The process, numbered as for Replace; 0 of one process.
  pid_t pid(size_t process) const { return children_[process]->pid(); }
  std::unique_ptr<tutti::workflow::v1::RunService::Stub> runs() const {
    return tutti::workflow::v1::RunService::NewStub(channel_);
  }

 private:
  std::vector<std::vector<std::string>> Commands() const;
  Options options_;
  std::vector<int> ports_;  // http, grpc gateway, engine, agents, tools, state, monitoring
  std::vector<std::unique_ptr<ChildProcess>> children_;
  std::vector<std::string> log_files_;
  std::shared_ptr<grpc::Channel> channel_;
};

// Reads a run until it has ended, or `seconds` have passed.
tutti::workflow::v1::Run WaitForEnd(SuiteProcess& suite, const std::string& run_id, double seconds);
// A spec from YAML; aborts on a wrong one.
tutti::workflow::v1::WorkflowSpec SpecFromYaml(const std::string& text);

template <class Condition>
bool Eventually(Condition condition, double seconds) {
  auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    Pause();
  }
  return true;
}

}  // namespace tutti::testing
