// What a store that holds much answers: each prints a line of what it measured.
#pragma once

#include "bench/store/opened_store.h"

namespace tutti::state_manager {

void ReadLongRun(OpenedStore& store, const char* engine);
void SearchMemories(OpenedStore& store, const char* engine, int count);
// One in eleven waits for an engine, the others have ended.
void ManyRuns(const StoreConfig& config, const char* engine, int count);

}  // namespace tutti::state_manager
