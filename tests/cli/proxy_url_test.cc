#include "cli/proxy_url.h"

#include <gtest/gtest.h>

#include <string>

namespace braid::proxy_url_test {
namespace {

HostPort Named(const std::string& host, uint16_t port) { return {host, port, {}}; }

HostPort At(const std::string& address, uint16_t port) {
  return {address, port, *IpAddress::Parse(address)};
}

TEST(ProxyUrl, HasAHostAndMayHaveAPort) {
  const struct {
    const char* text;
    HostPort server;
  } kCases[] = {
      {"socks5://192.0.2.7:9050", At("192.0.2.7", 9050)},
      {"socks5://192.0.2.7", At("192.0.2.7", 1080)},
      {"socks5://[2001:db8::7]:9050", At("2001:db8::7", 9050)},
      {"socks5://[2001:db8::7]", At("2001:db8::7", 1080)},
      {"socks5://proxy.example.net:9050/", Named("proxy.example.net", 9050)},
      {"socks5://proxy", Named("proxy", 1080)},
  };
  for (const auto& [text, server] : kCases) {
    const auto url = ParseProxyUrl(text);
    ASSERT_TRUE(url.ok()) << text;
    EXPECT_EQ(*url, (ProxyUrl{server, "", std::nullopt})) << text;
  }
}

TEST(ProxyUrl, MayHaveALogin) {
  const struct {
    const char* text;
    const char* username;
    std::optional<std::string> password;
  } kCases[] = {
      {"socks5://me@proxy", "me", std::nullopt},
      {"socks5://me:secret@proxy", "me", "secret"},
      {"socks5://me:a:b@c@proxy", "me", "a:b@c"},
      {"socks5://m%65%3A:50%25%40%2f@proxy", "me:", "50%@/"},
  };
  for (const auto& [text, username, password] : kCases) {
    const auto url = ParseProxyUrl(text);
    ASSERT_TRUE(url.ok()) << text;
    EXPECT_EQ(*url, (ProxyUrl{Named("proxy", 1080), username, password})) << text;
  }
}

TEST(ProxyUrl, WhatIsNoneIsRefusedWithoutTellingIt) {
  const std::string cases[] = {
      "",
      "socks5://",
      "proxy:1080",
      "http://me:secret@proxy",
      "socks5://me:secret@",
      "socks5://me:secret@proxy:0",
      "socks5://me:secret@proxy:70000",
      "socks5://me:secret@pro xy",
      "socks5://me:secret@192.0.2.777",
      "socks5://me:secret@[192.0.2.7]",
      "socks5://me:secret@[proxy]",
      "socks5://me:secret%@proxy",
      "socks5://me:secret%4@proxy",
      "socks5://me%zz:secret@proxy",
      "socks5://:secret@proxy",
      "socks5://me:@proxy",
      "socks5://me:secret" + std::string(256, 'x') + "@proxy",
      "socks5://me:secret@proxy/path",
  };
  for (const std::string& text : cases) {
    const auto url = ParseProxyUrl(text);
    ASSERT_FALSE(url.ok()) << text;
    EXPECT_EQ(std::string(url.status().message()).find("secret"), std::string::npos) << text;
  }
}

}  // namespace
}  // namespace braid::proxy_url_test
