#include "tests/support/ports.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <random>

#include "absl/strings/str_cat.h"

namespace tutti::testing {
namespace {

constexpr int kLowest = 10000;

sockaddr_in Loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(port));
  return address;
}

bool CanListen(int port) {
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on,
             sizeof on);  // as servers do: a closed connection's wait is no hindrance
  sockaddr_in address = Loopback(port);
  bool ok = bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 && listen(fd, 1) == 0;
  close(fd);
  return ok;
}

// The lock goes with the process, however it ends; the descriptor is left open for that.
bool Claim(int port) {
  std::string dir = absl::StrCat(std::filesystem::temp_directory_path().string(), "/tutti_test_ports");
  mkdir(dir.c_str(), 0777);
  int fd = open(absl::StrCat(dir, "/", port).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (fd < 0) return false;
  if (flock(fd, LOCK_EX | LOCK_NB) == 0) return true;
  close(fd);
  return false;
}

}  // namespace

int FreePort() {
  int first_ephemeral = 32768;
  std::ifstream("/proc/sys/net/ipv4/ip_local_port_range") >> first_ephemeral;
  int end = first_ephemeral > kLowest + 1000 ? first_ephemeral : 32768;
  static std::mt19937 random{std::random_device{}()};
  for (int attempt = 0; attempt < 10000; ++attempt) {
    int port = std::uniform_int_distribution<int>(kLowest, end - 1)(random);
    if (CanListen(port) && Claim(port)) return port;
  }
  std::cerr << "no free port between " << kLowest << " and " << end << "\n";
  abort();
}

std::vector<int> FreePorts(int count) {
  std::vector<int> ports;
  while (static_cast<int>(ports.size()) < count) ports.push_back(FreePort());
  return ports;
}

bool Accepts(int port) {
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = Loopback(port);
  bool ok = connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  close(fd);
  return ok;
}

}  // namespace tutti::testing
