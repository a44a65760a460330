// Small packets that a worker itself writes to TUN: ICMP errors and resets for who sent what cannot
// go on. They are written with the batch.
#pragma once

#include <array>

#include "fastpath/worker_state.h"

namespace braid {

class TunAnswers {
 public:
  static constexpr size_t kMaxAnswers = 64;    // between two flushes
  static constexpr size_t kAnswerBytes = 640;  // an ICMP error stays within 576

  explicit TunAnswers(WorkerState& state) : state_(state) {}

  // Where the next one is to be written, as a whole packet. Empty when there is no room.
  MutableBytes Next() {
    if (used_ == kMaxAnswers) return {};
    return MutableBytes(answers_[used_].bytes).subspan(kVnetHeaderBytes);
  }
  // It was, so many bytes of it; 0: it was not.
  void Write(size_t bytes) {
    if (bytes == 0) return;
    Answer& answer = answers_[used_++];
    StoreNative(answer.bytes.data(), VnetHeader{});
    answer.part = {answer.bytes.data(), kVnetHeaderBytes + bytes};
    answer.request = {state_.options.tun_fd, {&answer.part, 1}, 0};
    state_.backend->Write(answer.request);
  }

  // Forgets them, once the backend has flushed.
  void AfterFlush() { used_ = 0; }

 private:
  struct Answer {
    std::array<uint8_t, kAnswerBytes> bytes;
    iovec part;
    WriteRequest request;
  };

  WorkerState& state_;
  std::array<Answer, kMaxAnswers> answers_;
  size_t used_ = 0;
};

}  // namespace braid
