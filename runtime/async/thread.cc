#include "runtime/async/thread.h"

#include <pthread.h>
#include <sched.h>

namespace tutti {
namespace {

// Where a sandbox refuses it, threads are as they were.
void SetPolicy(int policy) {
  const sched_param parameters{};
  pthread_setschedparam(pthread_self(), policy, &parameters);
}

}  // namespace

void NameThread(std::thread& thread, const std::string& name) {
  pthread_setname_np(thread.native_handle(), name.substr(0, 15).c_str());
}

void RunInBackground() { SetPolicy(SCHED_BATCH); }

void RunInForeground() { SetPolicy(SCHED_OTHER); }

}  // namespace tutti
