// The name in what a flow says first: of TLS and of HTTP, however it comes cut, and none in
// whatever else.
#include "egress/first_bytes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace braid::first_bytes_test {
namespace {

using Verdict = FirstBytesVerdict;
using Message = std::vector<uint8_t>;

const FirstBytes kMore = {Verdict::kMore, {}};
const FirstBytes kNone = {Verdict::kNone, {}};

FirstBytes Found(const std::string& name) { return {Verdict::kFound, name}; }

Bytes AsBytes(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

// How many bytes it takes until there is a verdict; each of the prefixes that are longer has the
// same, and each that is shorter has none.
size_t BytesUntilVerdict(Bytes whole) {
  const FirstBytes last = ReadFirstBytes(whole);
  size_t needed = 0;
  while (needed < whole.size() && ReadFirstBytes(whole.first(needed)) == kMore) ++needed;
  for (size_t bytes = needed; bytes < whole.size(); ++bytes) {
    EXPECT_EQ(ReadFirstBytes(whole.first(bytes)), last) << bytes;
  }
  return needed;
}

FirstBytes Read(std::string_view text) {
  BytesUntilVerdict(AsBytes(text));
  return ReadFirstBytes(AsBytes(text));
}

// --- TLS ---

void Append(Message& to, const Message& more) { to.insert(to.end(), more.begin(), more.end()); }

// With its length in front, in so many bytes.
Message Vector(size_t width, const Message& content) {
  Message vector;
  for (size_t i = width; i-- > 0;) vector.push_back(static_cast<uint8_t>(content.size() >> 8 * i));
  Append(vector, content);
  return vector;
}

Message Extension(uint16_t type, const Message& data) {
  Message extension = {static_cast<uint8_t>(type >> 8), static_cast<uint8_t>(type)};
  Append(extension, Vector(2, data));
  return extension;
}

Message ServerName(std::string_view name, uint8_t name_type = 0) {
  Message entry = {name_type};
  Append(entry, Vector(2, {name.begin(), name.end()}));
  return Extension(0, Vector(2, entry));
}

Message Joined(const std::vector<Message>& parts) {
  Message whole;
  for (const Message& part : parts) Append(whole, part);
  return whole;
}

const Message kVersions = Extension(43, {2, 3, 4});
const Message kKeyShare = Extension(51, Vector(2, Message(1200, 0x5a)));

// A handshake message; `extensions` stands behind the compression methods as it is.
Message Hello(const Message& extensions, size_t session_id_bytes = 32) {
  Message body = {3, 3};
  Append(body, Message(32, 0xaa));
  Append(body, Vector(1, Message(session_id_bytes, 0xbb)));
  Append(body, Vector(2, {0x13, 0x01, 0x13, 0x02}));
  Append(body, Vector(1, {0}));
  Append(body, extensions);
  Message hello = {1};
  Append(hello, Vector(3, body));
  return hello;
}

Message HelloWith(const std::vector<Message>& extensions) {
  return Hello(Vector(2, Joined(extensions)));
}

// In records of at most so many bytes.
Message Records(const Message& handshake, size_t record_bytes = 16384) {
  Message records;
  for (size_t at = 0; at < handshake.size(); at += record_bytes) {
    const auto from = handshake.begin() + static_cast<ptrdiff_t>(at);
    const size_t bytes = std::min(record_bytes, handshake.size() - at);
    Append(records, {22, 3, 1});
    Append(records, Vector(2, {from, from + static_cast<ptrdiff_t>(bytes)}));
  }
  return records;
}

FirstBytes Read(const Message& message) {
  BytesUntilVerdict(message);
  return ReadFirstBytes(message);
}

FirstBytes ReadServerName(std::string_view name) {
  return Read(Records(HelloWith({kVersions, ServerName(name)})));
}

TEST(FirstBytesOfTls, NameTheServer) {
  const Message hello = Records(HelloWith({kVersions, ServerName("WWW.Example.com"), kKeyShare}));
  EXPECT_EQ(Read(hello), Found("www.example.com"));
  // As soon as the name is there.
  const size_t behind = kKeyShare.size();
  EXPECT_EQ(BytesUntilVerdict(hello), hello.size() - behind);
}

// Recorded of OpenSSL 3.0: s_client -tls1_3 -servername Example.org, with one choice of each kind.
TEST(FirstBytesOfTls, OfOpensslNameTheServer) {
  const Message hello = {
      0x16, 0x03, 0x01, 0x00, 0xbc, 0x01, 0x00, 0x00, 0xb8, 0x03, 0x03, 0x34, 0xca, 0x82, 0x53,
      0x7f, 0xc1, 0x8e, 0xa7, 0x22, 0xe4, 0xf9, 0x55, 0x1e, 0x79, 0xde, 0x49, 0x0b, 0x5b, 0xc1,
      0x7f, 0xf3, 0xac, 0x93, 0xd5, 0x74, 0x1d, 0x94, 0x07, 0x06, 0xd1, 0x9e, 0x34, 0x20, 0xa6,
      0x8c, 0x96, 0x55, 0x82, 0x70, 0xa3, 0x61, 0x0f, 0xd0, 0xf7, 0x5c, 0xe9, 0x03, 0xd2, 0x1e,
      0x7c, 0xcf, 0x45, 0x55, 0xb9, 0x17, 0xcb, 0x1d, 0x0f, 0x3d, 0xde, 0xa0, 0xe0, 0x78, 0x54,
      0x28, 0x00, 0x04, 0x13, 0x01, 0x00, 0xff, 0x01, 0x00, 0x00, 0x6b, 0x00, 0x00, 0x00, 0x10,
      0x00, 0x0e, 0x00, 0x00, 0x0b, 0x45, 0x78, 0x61, 0x6d, 0x70, 0x6c, 0x65, 0x2e, 0x6f, 0x72,
      0x67, 0x00, 0x0b, 0x00, 0x04, 0x03, 0x00, 0x01, 0x02, 0x00, 0x0a, 0x00, 0x04, 0x00, 0x02,
      0x00, 0x1d, 0x00, 0x16, 0x00, 0x00, 0x00, 0x17, 0x00, 0x00, 0x00, 0x0d, 0x00, 0x04, 0x00,
      0x02, 0x04, 0x03, 0x00, 0x2b, 0x00, 0x03, 0x02, 0x03, 0x04, 0x00, 0x2d, 0x00, 0x02, 0x01,
      0x01, 0x00, 0x33, 0x00, 0x26, 0x00, 0x24, 0x00, 0x1d, 0x00, 0x20, 0x2f, 0x07, 0xd5, 0x04,
      0xb8, 0x46, 0x9d, 0x4c, 0x9d, 0xe1, 0x55, 0xf1, 0x05, 0x2b, 0x43, 0xbb, 0x44, 0x03, 0x87,
      0x19, 0x2d, 0x27, 0x81, 0x22, 0x39, 0x33, 0x0d, 0x1e, 0x7f, 0x64, 0xd3, 0x08};
  EXPECT_EQ(Read(hello), Found("example.org"));
}

TEST(FirstBytesOfTls, MayBeInAnyNumberOfRecords) {
  const Message hello = HelloWith({kVersions, ServerName("example.com")});
  for (size_t record_bytes = 1; record_bytes <= hello.size(); ++record_bytes) {
    EXPECT_EQ(ReadFirstBytes(Records(hello, record_bytes)), Found("example.com")) << record_bytes;
  }
  EXPECT_EQ(Read(Records(hello, 1)), Found("example.com"));
  EXPECT_EQ(Read(Records(hello, 7)), Found("example.com"));
}

TEST(FirstBytesOfTls, MayHaveExtensionsInAnyOrder) {
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    std::vector<Message> extensions = {ServerName("a.example")};
    for (size_t i = random() % 8; i > 0; --i) {
      extensions.push_back(Extension(static_cast<uint16_t>(1 + random() % 65535),
                                     Message(random() % 300, static_cast<uint8_t>(random()))));
    }
    std::shuffle(extensions.begin(), extensions.end(), random);
    const Message hello = Hello(Vector(2, Joined(extensions)), random() % 33);
    EXPECT_EQ(ReadFirstBytes(Records(hello, 1 + random() % 500)), Found("a.example"));
  }
}

TEST(FirstBytesOfTls, WithoutServerNameHaveNone) {
  EXPECT_EQ(Read(Records(HelloWith({kVersions, kKeyShare}))), kNone);
  EXPECT_EQ(Read(Records(HelloWith({}))), kNone);
  EXPECT_EQ(Read(Records(Hello({}))), kNone) << "without extensions at all";
  EXPECT_EQ(Read(Records(HelloWith({Extension(0, {})}))), kNone);
  EXPECT_EQ(Read(Records(HelloWith({Extension(0, {0, 0})}))), kNone);
  EXPECT_EQ(Read(Records(HelloWith({ServerName("example.com", 1)}))), kNone) << "another type";
}

TEST(FirstBytesOfTls, HaveTheHostNameAmongNamesOfOtherTypes) {
  Message names = {9, 0, 2, 'x', 'y', 0};
  const std::string_view host = "example.com";
  Append(names, Vector(2, {host.begin(), host.end()}));
  EXPECT_EQ(Read(Records(HelloWith({Extension(0, Vector(2, names))}))), Found("example.com"));
}

TEST(FirstBytesOfTls, OfWhatIsNoHelloHaveNone) {
  const Message hello = HelloWith({ServerName("example.com")});
  const auto with = [](Message records, size_t at, uint8_t to) {
    records.at(at) = to;
    return records;
  };
  EXPECT_EQ(Read(with(Records(hello), 0, 23)), kNone) << "data";
  EXPECT_EQ(Read(with(Records(hello), 1, 2)), kNone) << "version 2";
  EXPECT_EQ(Read(with(Records(hello), 5, 2)), kNone) << "a server's hello";
  EXPECT_EQ(Read(with(Records(hello), 9, 4)), kNone) << "another version";
  EXPECT_EQ(Read(Records(Hello(Vector(2, ServerName("example.com")), 33))), kNone);
  EXPECT_EQ(Read(Message{22, 3, 1, 0, 0, 22, 3, 1, 0, 1, 1}), kNone) << "an empty record";
  EXPECT_EQ(Read(Message{22, 3, 1, 0x40, 1}), kNone) << "too long a record";
  // Another record within the hello, before the name.
  Message interrupted = Records(hello, 40);
  interrupted.at(45) = 21;
  EXPECT_EQ(Read(interrupted), kNone);
}

TEST(FirstBytesOfTls, ThatDoNotFitIntoEachOtherHaveNone) {
  // The name, its list, the extension and all extensions: each longer than what it is in, by one.
  const Message hello = HelloWith({ServerName("example.com")});
  for (const size_t before_end : {11u + 1, 11u + 4, 11u + 6, 11u + 10}) {
    Message grown = hello;
    ++grown.at(hello.size() - before_end);
    EXPECT_EQ(Read(Records(grown)), kNone) << before_end;
  }
  // And it less long than what is in it.
  Message shrunk = hello;
  --shrunk.at(3);
  EXPECT_EQ(Read(Records(shrunk)), kNone);
}

TEST(FirstBytesOfTls, CutAnywhereBeforeTheNameAreNotEnough) {
  const Message hello = Records(HelloWith({kVersions, ServerName("example.com")}), 50);
  for (size_t bytes = 0; bytes < hello.size(); ++bytes) {
    EXPECT_EQ(ReadFirstBytes(Bytes(hello).first(bytes)), kMore) << bytes;
  }
  EXPECT_EQ(ReadFirstBytes(hello), Found("example.com"));
}

TEST(FirstBytesOfTls, AreWaitedForUpToALimit) {
  const auto with_padding = [](size_t bytes) {
    return Records(HelloWith({Extension(21, Message(bytes)), ServerName("example.com")}));
  };
  const size_t room = kMaxFirstBytes - with_padding(0).size();
  EXPECT_EQ(ReadFirstBytes(with_padding(room)), Found("example.com"));
  const Message too_long = with_padding(room + 1);
  EXPECT_EQ(ReadFirstBytes(Bytes(too_long).first(kMaxFirstBytes - 1)), kMore);
  EXPECT_EQ(ReadFirstBytes(Bytes(too_long).first(kMaxFirstBytes)), kNone);
  EXPECT_EQ(ReadFirstBytes(too_long), kNone);
}

// --- Names, as TLS has them ---

TEST(FirstBytesName, IsAHostName) {
  EXPECT_EQ(ReadServerName("localhost"), Found("localhost"));
  EXPECT_EQ(ReadServerName("a-b.c_d.XN--e"), Found("a-b.c_d.xn--e"));
  EXPECT_EQ(ReadServerName("example.com."), Found("example.com"));
  EXPECT_EQ(ReadServerName("1.2.3.com"), Found("1.2.3.com"));
  for (const char* name : {"", ".", "..", "a..b", ".a", "a..", "-a.b", "a-.b", "a b", "a/b", "*.a",
                           "a:443", "a\\b", "b\xc3\xbc.de", "a@b"}) {
    EXPECT_EQ(ReadServerName(name), kNone) << name;
  }
  EXPECT_EQ(ReadServerName(std::string_view("a\0b", 3)), kNone);
}

TEST(FirstBytesName, IsNoAddress) {
  for (const char* name :
       {"192.0.2.1", "192.0.2.1.", "127.1", "1", "2001:db8::1", "[2001:db8::1]"}) {
    EXPECT_EQ(ReadServerName(name), kNone) << name;
  }
}

TEST(FirstBytesName, HasAtMost253Bytes) {
  const std::string label(63, 'a');
  const std::string longest = label + "." + label + "." + label + "." + std::string(61, 'b');
  ASSERT_EQ(longest.size(), 253u);
  EXPECT_EQ(ReadServerName(longest), Found(longest));
  EXPECT_EQ(ReadServerName(longest + "."), Found(longest));
  EXPECT_EQ(ReadServerName(longest + "b"), kNone);
  EXPECT_EQ(ReadServerName(longest + "b."), kNone);
  EXPECT_EQ(ReadServerName(label + "a.b"), kNone) << "a label of 64";
  // One that is longer is not waited for.
  const Message hello = Records(HelloWith({ServerName(std::string(255, 'a'))}));
  EXPECT_EQ(BytesUntilVerdict(hello), hello.size() - 255);
}

// --- HTTP ---

TEST(FirstBytesOfHttp, NameTheHost) {
  const std::string_view request =
      "GET /index.html?a=b HTTP/1.1\r\nUser-Agent: some/1.0 (x; y)\r\nHost: WWW.Example.com\r\n"
      "Accept: */*\r\n\r\n";
  EXPECT_EQ(Read(request), Found("www.example.com"));
  // As soon as the line ends.
  EXPECT_EQ(BytesUntilVerdict(AsBytes(request)), request.find("Accept"));
}

TEST(FirstBytesOfHttp, MayHaveTheHostInManyWays) {
  for (const char* line :
       {"Host: example.com", "host:example.com", "HOST:\t example.com \t", "Host: example.com:8080",
        "Host: EXAMPLE.com.:80", "Host: example.com:"}) {
    EXPECT_EQ(Read("GET / HTTP/1.1\r\n" + std::string(line) + "\r\n\r\n"), Found("example.com"))
        << line;
  }
  EXPECT_EQ(Read("GET / HTTP/1.1\nHost: example.com\n\n"), Found("example.com")) << "bare LF";
  EXPECT_EQ(Read("GET / HTTP/1.0\r\nHost: example.com\r\n"), Found("example.com"));
  EXPECT_EQ(Read("OPTIONS * HTTP/1.1\r\nHost: example.com\r\n"), Found("example.com"));
  EXPECT_EQ(Read("M-SEARCH / HTTP/1.1\r\nHost: example.com\r\n"), Found("example.com"));
  EXPECT_EQ(Read("GET / HTTP/1.1\r\nX: \xff\xfe\r\nHost: example.com\r\n"), Found("example.com"));
}

TEST(FirstBytesOfHttp, NameTheFirstOfTwoHosts) {
  EXPECT_EQ(Read("GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n"), Found("a.example"));
  EXPECT_EQ(Read("GET / HTTP/1.1\r\nX-Host: a.example\r\nHost: b.example\r\n"), Found("b.example"));
  EXPECT_EQ(Read("GET / HTTP/1.1\r\nHos: a.example\r\nHost: b.example\r\n"), Found("b.example"));
}

TEST(FirstBytesOfHttp, NameTheHostOfTheTargetBeforeAnyOther) {
  const std::string rest = " HTTP/1.1\r\nHost: other.example\r\n\r\n";
  for (const char* target :
       {"GET http://example.com/", "GET http://example.com", "GET HTTP://example.com:80/a?b",
        "GET http://example.com?b", "GET http://example.com#b", "GET http://user:x@example.com/",
        "GET http://a@b@example.com/", "GET http://other.example@example.com/",
        "GET http://example.com/@other.example/", "POST ws+tls.1-2://example.com/",
        "CONNECT example.com:443", "CONNECT EXAMPLE.com"}) {
    EXPECT_EQ(Read(target + rest), Found("example.com")) << target;
  }
  // At the end of its line.
  const std::string connect = "CONNECT example.com:443" + rest;
  EXPECT_EQ(BytesUntilVerdict(AsBytes(connect)), connect.find("Host"));
}

TEST(FirstBytesOfHttp, OfTargetsThatNameNoHostHaveNone) {
  const std::string rest = " HTTP/1.1\r\nHost: example.com\r\n\r\n";
  for (const char* target :
       {"GET example.com", "GET example.com/", "GET ://example.com/", "GET http:/example.com/",
        "GET x?http://example.com/", "GET http://", "GET http:///a", "GET http://[2001:db8::1]/",
        "GET http://192.0.2.1/", "CONNECT 192.0.2.1:443", "CONNECT [2001:db8::1]:443",
        "CONNECT http://example.com/", "CONNECT /", "CONNECT *", "GET "}) {
    EXPECT_EQ(Read(target + rest), kNone) << target;
  }
  // Nothing behind it is waited for.
  const std::string_view request = "GET example.com HTTP/1.1\r\n";
  EXPECT_EQ(BytesUntilVerdict(AsBytes(request)), request.find(" HTTP") + 1);
}

TEST(FirstBytesOfHttp, OfHostsThatAreNoNamesHaveNone) {
  for (const char* host : {"", " ", "192.0.2.1", "192.0.2.1:80", "[2001:db8::1]", "[::1]:80",
                           "2001:db8::1", "example.com:x", "example.com:80:80", "a b", "a, b",
                           "http://example.com", "user@example.com", ":80"}) {
    EXPECT_EQ(Read("GET / HTTP/1.1\r\nHost: " + std::string(host) + "\r\n"), kNone) << host;
  }
  EXPECT_EQ(Read("GET / HTTP/1.0\r\n\r\n"), kNone) << "no host";
  EXPECT_EQ(Read("GET / HTTP/1.0\r\nA: b\r\n\r\nHost: example.com\r\n"), kNone) << "in the body";
}

TEST(FirstBytesOfHttp, ThatAreBrokenHaveNone) {
  const std::string host = "Host: example.com\r\n\r\n";
  for (const char* head :
       {" / HTTP/1.1\r\n", "GET  HTTP/1.1\r\n", "GET /  HTTP/1.1\r\n", "GET / HTTP/1.\r\n",
        "GET / HTTP/1.11\r\n", "GET / HTTP/1.1 \r\n", "GET / http/1.1\r\n", "GET /\r\n",
        "GET / HTTP/1.1\r\r\n", "get / HTTP/1.1\r\n", "GET\t/ HTTP/1.1\r\n",
        "GET / HTTP/1.1\r\nno colon\r\n", "GET / HTTP/1.1\r\n: empty\r\n",
        "GET / HTTP/1.1\r\n folded: x\r\n", "GET / HTTP/1.1\r\nA : b\r\n",
        "GET / HTTP/1.1\r\nA: b\rc\r\n", "GET / HTTP/1.1\r\nA: \x01\r\n",
        "ABCDEFGHIJKLMNOPQRSTUVWXY / HTTP/1.1\r\n"}) {
    EXPECT_EQ(Read(head + host), kNone) << head;
  }
  EXPECT_EQ(Read("GET / HTTP/1.1\r\nA: " + std::string(1, '\0') + "\r\n" + host), kNone);
  EXPECT_EQ(Read("ABCDEFGHIJKLMNOPQRSTUVWX / HTTP/1.1\r\n" + host), Found("example.com"));
}

TEST(FirstBytesOfHttp, AreWaitedForUpToALimit) {
  const std::string begin = "GET / HTTP/1.1\r\nCookie: ", end = "\r\nHost: example.com\r\n";
  const size_t room = kMaxFirstBytes - begin.size() - end.size();
  const std::string fits = begin + std::string(room, 'c') + end;
  EXPECT_EQ(ReadFirstBytes(AsBytes(fits)), Found("example.com"));
  const std::string too_long = begin + std::string(room + 1, 'c') + end;
  EXPECT_EQ(ReadFirstBytes(AsBytes(too_long).first(kMaxFirstBytes - 1)), kMore);
  EXPECT_EQ(ReadFirstBytes(AsBytes(too_long).first(kMaxFirstBytes)), kNone);
  EXPECT_EQ(ReadFirstBytes(AsBytes(too_long)), kNone);
}

// --- Others ---

TEST(FirstBytes, OfOtherProtocolsHaveNoneSoon) {
  const std::pair<std::string_view, size_t> protocols[] = {
      {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 12},
      {"SSH-2.0-OpenSSH_9.2\r\n", 5},
      {"EHLO example.com\r\n", 17},
      {"USER someone\r\n", 13},
      {"\x05\x01", 1},
      {"\x13"
       "BitTorrent protocol",
       1},
      {"* OK\r\n", 1},
      {"\r\nGET / HTTP/1.1\r\n", 1},
      {std::string_view("\0\0\0\x24", 4), 1},
  };
  for (const auto& [bytes, needed] : protocols) {
    EXPECT_EQ(Read(bytes), kNone) << bytes;
    EXPECT_EQ(BytesUntilVerdict(AsBytes(bytes)), needed) << bytes;
  }
}

TEST(FirstBytes, ThatHaveNotComeAreWaitedFor) {
  EXPECT_EQ(ReadFirstBytes({}), kMore);
  EXPECT_EQ(Read("G"), kMore);
  EXPECT_EQ(Read("GET / HTTP/1.1\r\nHost: example.com"), kMore);
  EXPECT_EQ(Read("GET / HTTP/1.1\r\nHost: example.com\r"), kMore);
  EXPECT_EQ(Read("\x16"), kMore);
}

}  // namespace
}  // namespace braid::first_bytes_test
