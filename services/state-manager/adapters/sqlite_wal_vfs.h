// SQLite's write-ahead log, written as one piece for each transaction. SQLite itself makes two system calls for each
// page of a transaction (the frame's header, then the page), some seventy for a commit of twenty appends; here they
// gather in memory until SQLite asks for the sync, which comes before anybody is told of the commit.
#pragma once

namespace tutti::state_manager {

// The name of the VFS; registered with the first call. For connections with synchronous=FULL (or EXTRA) only: at lower
// levels a commit would be visible to other connections before it is in the file. Null: SQLite has no VFS to build on.
const char* WalVfs();

}  // namespace tutti::state_manager
