"""What every suite shares."""
