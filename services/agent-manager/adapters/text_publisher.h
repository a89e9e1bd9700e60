// What models say, on its way to those who watch the run. Nothing depends on it, and a step's end waits for the last of
// it no longer than a third of a second.
#pragma once

#include <deque>
#include <memory>
#include <string>

#include "runtime/async/one_shot.h"
#include "runtime/async/scope.h"
#include "runtime/rpc/local_methods.h"
#include "runtime/time/clock.h"
#include "tutti/agent/v1/agent_service.pb.h"
#include "tutti/state/v1/journal_service.pb.h"

namespace tutti::agent_manager {

class TextPublisher {
 public:
  // All methods on `executor`.
  TextPublisher(RpcPeer state_manager, const LocalMethods& local, Executor& executor, TimerService& timers,
                Tracer& tracer);
  // What one attempt says.
  class Speech : public std::enable_shared_from_this<Speech> {
   public:
    Speech(TextPublisher& publisher, tutti::state::v1::LiveText about);
    // Published within a moment, with what comes meanwhile.
    void Say(int turn, absl::string_view piece);
    // All has been said, and was published or takes too long.
    Task<void> End();

   private:
    friend class TextPublisher;
    TextPublisher& publisher_;
    tutti::state::v1::LiveText next_;  // turn and offset of what comes next
    std::deque<tutti::state::v1::LiveText> waiting_;
    bool publishing_ = false;
    std::stop_source ending_;
    OneShot<bool> published_;
  };
  // Null when nobody could watch: the call belongs to no run.
  std::shared_ptr<Speech> Open(const tutti::agent::v1::ExecuteRequest& request, const std::string& agent);

  // Ends what is under way. From another thread; blocks.
  void Stop();

 private:
  Task<void> Publish(std::shared_ptr<Speech> speech);

  const LocalMethods& local_;
  const RpcPeer peer_;
  Executor& executor_;
  TimerService& timers_;
  Tracer& tracer_;
  std::stop_source stop_;
  Scope scope_;
};

}  // namespace tutti::agent_manager
