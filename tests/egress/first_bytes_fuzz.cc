// Any bytes as the beginning of a flow, also as a hello of TLS in records of any size: a verdict is
// the same however much has come behind, and a name that is found is one wherever it may stand.
#include <algorithm>
#include <array>
#include <string>
#include <string_view>

#include "egress/first_bytes.h"
#include "support/fuzz_input.h"

namespace braid {
namespace {

using testing::Buffer;
using testing::Check;

constexpr size_t kMaxFuzzedBytes = 600;  // every prefix of which is read

Bytes AsBytes(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

bool IsName(std::string_view name) {
  return !name.empty() && name.size() <= 253 && name.front() != '.' && name.back() != '.' &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
                  c == '.';
         });
}

Buffer Records(Bytes handshake, size_t record_bytes) {
  Buffer records;
  while (!handshake.empty()) {
    const Bytes part = handshake.first(std::min(record_bytes, handshake.size()));
    std::array<uint8_t, 5> header = {22, 3, 1};
    StoreBe16(&header[3], static_cast<uint16_t>(part.size()));
    records.insert(records.end(), header.begin(), header.end());
    records.insert(records.end(), part.begin(), part.end());
    handshake = handshake.subspan(part.size());
  }
  return records;
}

// A hello of which the input has what comes behind the compression methods.
Buffer HelloAround(const Buffer& extensions) {
  Buffer hello = {1, 0, 0, 0, 3, 3};
  hello.resize(hello.size() + 32);
  for (const uint8_t byte : {0, 0, 2, 19, 1, 1, 0, 0, 0})
    hello.push_back(static_cast<uint8_t>(byte));
  StoreBe16(&hello[hello.size() - 2], static_cast<uint16_t>(extensions.size()));
  hello.insert(hello.end(), extensions.begin(), extensions.end());
  StoreBe16(&hello[2], static_cast<uint16_t>(hello.size() - 4));
  return hello;
}

void CheckName(const std::string& name) {
  Check(IsName(name));
  const FirstBytes found = {FirstBytesVerdict::kFound, name};
  for (const std::string& request :
       {"GET / HTTP/1.1\r\nHost: " + name + ":80\r\n", "CONNECT " + name + " HTTP/1.1\r\n",
        "GET http://" + name + ".? HTTP/1.1\r\n"}) {
    Check(ReadFirstBytes(AsBytes(request)) == found);
  }
  Buffer extension(9);
  StoreBe16(&extension[2], static_cast<uint16_t>(name.size() + 5));
  StoreBe16(&extension[4], static_cast<uint16_t>(name.size() + 3));
  StoreBe16(&extension[7], static_cast<uint16_t>(name.size()));
  extension.insert(extension.end(), name.begin(), name.end());
  Check(ReadFirstBytes(Records(HelloAround(extension), 100)) == found);
}

void CheckFlow(const Buffer& flow) {
  const FirstBytes whole = ReadFirstBytes(flow);
  Check((whole.verdict == FirstBytesVerdict::kFound) != whole.name.empty());
  bool has_verdict = false;
  for (size_t bytes = 0; bytes < flow.size(); ++bytes) {
    // In memory of its own, so that a look past its end is noticed.
    const Buffer part(flow.begin(), flow.begin() + static_cast<ptrdiff_t>(bytes));
    const FirstBytes read = ReadFirstBytes(part);
    if (read.verdict == FirstBytesVerdict::kMore) {
      Check(!has_verdict && read.name.empty());
    } else {
      Check(read == whole);
      has_verdict = true;
    }
  }
  if (has_verdict) Check(whole.verdict != FirstBytesVerdict::kMore);
  for (const uint8_t filler : Buffer{0, '\n', 'a', 0xff}) {
    Buffer longer = flow;
    longer.resize(kMaxFirstBytes + 1, filler);
    const FirstBytes last = ReadFirstBytes(longer);
    Check(last.verdict != FirstBytesVerdict::kMore);
    if (whole.verdict != FirstBytesVerdict::kMore) Check(last == whole);
  }
  if (whole.verdict == FirstBytesVerdict::kFound) CheckName(whole.name);
}

}  // namespace
}  // namespace braid

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace braid;
  testing::FuzzInput input({data, size});
  const uint8_t choice = input.Byte();
  const size_t record_bytes = size_t{1} + input.Byte();
  const testing::Buffer bytes = input.Take(kMaxFuzzedBytes);
  if (choice % 4 == 0) {
    CheckFlow(bytes);
  } else if (choice % 4 == 1) {
    CheckFlow(Records(HelloAround(bytes), record_bytes));
  } else if (choice % 4 == 2) {
    CheckFlow(Records(bytes, record_bytes));
  } else {
    testing::Buffer request = {'G', 'E', 'T', ' '};
    if (choice % 8 == 7)
      request.insert(request.end(), {'/', ' ', 'H', 'T', 'T', 'P', '/', '1', '.', '1', '\n'});
    request.insert(request.end(), bytes.begin(), bytes.end());
    CheckFlow(request);
  }
  return 0;
}
