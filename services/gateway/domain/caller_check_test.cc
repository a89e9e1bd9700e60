#include "services/gateway/domain/caller_check.h"

#include <gtest/gtest.h>

#include "runtime/status/error.h"
#include "runtime/status/testing/matchers.h"

namespace tutti::gateway {
namespace {

using tutti::testing::IsOk;

TEST(CallerCheckTest, LoopbackNamesAndAddressesMayAlwaysBeUsed) {
  for (const char* host : {"localhost", "localhost:8080", "LOCALHOST:1", "a.localhost:80", "127.0.0.1:8080", "10.1.2.3",
                           "[::1]:8080", "[2001:db8::1]"}) {
    EXPECT_THAT(CheckCaller({}, host, ""), IsOk()) << host;
  }
}

TEST(CallerCheckTest, ANameMustBeAllowed) {
  for (const char* host : {"evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example",
                           "xn--localhost", "[::1", "example.com"}) {
    EXPECT_EQ(ReasonOf(CheckCaller({}, host, "")), "HOST_NOT_ALLOWED") << host;
  }
  CallerRules rules{.allowed_hosts = {"api.example.com", ".svc.local"}};
  EXPECT_THAT(CheckCaller(rules, "API.example.com:443", ""), IsOk());
  EXPECT_THAT(CheckCaller(rules, "gateway.tutti.svc.local", ""), IsOk());
  EXPECT_FALSE(CheckCaller(rules, "svc.local", "").ok());
  EXPECT_FALSE(CheckCaller(rules, "api.example.com.evil.example", "").ok());
  EXPECT_THAT(CheckCaller({.allowed_hosts = {"*"}}, "anything.example", ""), IsOk());
  EXPECT_EQ(ReasonOf(CheckCaller(rules, "", "")), "NO_HOST");
}

TEST(CallerCheckTest, APageOfAnotherSiteMustBeAllowed) {
  EXPECT_EQ(ReasonOf(CheckCaller({}, "127.0.0.1:8080", "http://evil.example")), "ORIGIN_NOT_ALLOWED");
  EXPECT_EQ(ReasonOf(CheckCaller({}, "127.0.0.1:8080", "null")), "ORIGIN_NOT_ALLOWED");
  EXPECT_EQ(ReasonOf(CheckCaller({}, "127.0.0.1:8080", "http://127.0.0.1:3000")), "ORIGIN_NOT_ALLOWED");
  EXPECT_THAT(CheckCaller({}, "127.0.0.1:8080", "http://127.0.0.1:8080"), IsOk()) << "the gateway's own page";
  EXPECT_THAT(CheckCaller({.allowed_origins = {"https://console.example"}}, "localhost", "https://console.example"),
              IsOk());
}

}  // namespace
}  // namespace tutti::gateway
