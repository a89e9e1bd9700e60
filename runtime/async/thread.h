// Threads of the process: their names, and which of them the kernel lets run first.
#pragma once

#include <string>
#include <thread>

namespace tutti {

// As `top -H` and debuggers show it; the first 15 bytes count.
void NameThread(std::thread& thread, const std::string& name);

// For the thread that calls it and all that it starts later: they run when a core is free or their turn has come, but
// do not interrupt a thread that works (SCHED_BATCH, sched(7)). At the start of a process, before a library has
// threads.
//
// On few cores it is the event loop and the thread that commits that everything waits for, and gRPC's threads wake for
// each message: with them in the background a tenth more workflows a second went through two cores.
void RunInBackground();

// For the thread that calls it: as any other thread of the machine (SCHED_OTHER).
void RunInForeground();

}  // namespace tutti
